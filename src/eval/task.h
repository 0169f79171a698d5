// Task: one benchmark of `statera eval`, `extern const Task kTask_<name>` in tasks/<name>.cpp. A task reads its data file, runs the model
// and scores; who opens the model, keeps the log and writes the report is api/evaluate.cpp.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "run/prompt.h"
#include "run/scheduler.h"

namespace statera {

// What a person may set; a task uses its part.
struct TaskOptions {
  int64_t max_length = 0;  // tokens of a window; 0: 2048, or the model's limit where that is less
  int64_t stride = 0;      // tokens from one window's start to the next's; 0: max_length
  std::string metric = "exact";
  std::string prompt;  // with {question}
  int64_t max_new_tokens = 64;
  int64_t limit = 0;  // samples; 0: all
};

// The lines a task writes, one object with "id" for each sample; those of an earlier run are found again.
class SampleLog {
 public:
  virtual ~SampleLog() = default;
  // The line with this id, nullptr when there is none yet.
  virtual const Json* find(const Json& id) const = 0;
  virtual void append(const Json& line) = 0;
};

struct TaskJob {
  const Model& model;
  const PromptParts& parts;
  GenerationDefaults defaults;
  SchedulerOptions limits;
  MediaOptions media;  // base_dir is set
  TaskOptions options;
  std::string path, field;  // the data; field: PATH:FIELD, empty when not given
  SampleLog* log = nullptr;
  ProgressSink progress;
  const std::atomic<bool>* cancel = nullptr;
};

struct Score {
  std::string name;
  double value = 0;
  std::optional<double> standard_error;  // absent for a single sample
};

struct TaskResult {
  std::string unit;                  // of samples: "windows", "questions"
  int64_t samples = 0, resumed = 0;  // resumed: taken from the log
  std::string error_over;            // what standard errors are taken over: "documents"
  std::vector<Score> scores;         // the first is the task's score
  Json counts = Json::object();      // "tokens", ...
};

struct Task {
  const char* name;
  const char* summary;
  // Everything beside model, data and version that decides the results, defaults filled in. Error(usage) for options out of range.
  Json (*settings)(const TaskJob& job);
  // Errors: those of the data, naming file and line; interrupted when `cancel` was set (the log keeps what is done).
  TaskResult (*run)(const TaskJob& job);
};

// Generated from the files of src/eval/tasks/.
std::span<const Task* const> eval_tasks();

}  // namespace statera
