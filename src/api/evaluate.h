// evaluate: benchmarks over a checkpoint: tasks of eval/tasks/ over data files, with standard errors and a log of every sample.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/media_flags.h"
#include "base/json.h"
#include "base/progress.h"

namespace statera {

struct EvaluateOptions {
  std::string model, tasks, out, dtype = "fp32", compute = "exact", vision_attention = "exact", kv_cache = "auto";
  std::vector<std::string> data;
  int64_t max_length = 0, stride = 0;
  std::string metric = "exact", prompt;
  int64_t max_new_tokens = 64, limit = 0, max_running = 16, prefill_tokens = 2048;
  MediaFlags media;
  static constexpr std::string_view positional[] = {"model"};
  static constexpr std::string_view required[] = {"tasks", "data"};
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder");
    v("tasks", tasks, "tasks, separated by commas: perplexity, vqa");
    v("data", data, "data file (repeatable): PATH, PATH:FIELD for the texts of a .parquet, .jsonl or .json (the last two and .txt also with .zst); TASK=PATH with several tasks");
    v("out", out, "folder for the report and the log of samples; a run that was killed goes on from there");
    v("limit", limit, "samples of each data file (windows, questions); 0: all");
    v("max_length", max_length, "perplexity: tokens of a window; 0: 2048, or the model's limit where that is less");
    v("stride", stride, "perplexity: tokens between the starts of two windows; 0: max_length (disjoint windows)");
    v("metric", metric, "vqa: exact, relaxed (numbers within 5 %), anls, vqa (VQA accuracy) or iou (boxes)");
    v("prompt", prompt,
      "vqa: what is asked after the pictures, with {question} in it; when not given, the question and a line that asks for a single word "
      "or phrase");
    v("max_new_tokens", max_new_tokens, "vqa: tokens of an answer at most");
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; weights keep their stored precision");
    v("compute", compute, "how low-bit weights meet activations: exact, int8 (rounded to 8 bits, products in integers), or auto: int8 for layers that can");
    v("vision_attention", vision_attention, "how patches of a picture attend to each other: exact, int8 (rounded to 8 bits, both products in integers), or auto: int8 where layers of the tower compute in integers, too");
    v("kv_cache", kv_cache, "what keys and values are kept in, or rounded to for perplexity: auto (as activations are), fp16 or int8");
    v("max_running", max_running, "questions that are answered together");
    v("prefill_tokens", prefill_tokens, "tokens read in one pass");
    media.fields(v);
  }
};

struct EvaluateScore {
  std::string name;
  double value = 0;
  std::optional<double> standard_error;  // absent for a single sample
};

// One task over one data file.
struct EvaluateResult {
  std::string task, data, sha256;  // of the file's bytes
  Json settings;                   // all that decides the result beside model and data
  std::string unit, error_over;    // "questions"; what standard errors are taken over
  int64_t samples = 0, resumed = 0;
  std::vector<EvaluateScore> scores;  // the first is the task's score
  Json counts;                        // "tokens", ...
  std::string log;                    // the file of samples; empty without --out
  Json to_json() const;               // without `resumed`: equal for a run in one go and one in pieces
};

struct EvaluateReport {
  std::string model;
  std::vector<EvaluateResult> results;
  double seconds = 0;
  Json to_json() const;
  std::string to_text() const;
};

// With `out`: OUT/TASK.jsonl (TASK.2.jsonl for a task's second file) whose first line {"id": false, "settings": ...} says what the others
// were made with, and OUT/report.json. Lines of an earlier run are kept, a cut last one is made again. Errors: usage for unknown tasks and
// options out of range; not_found and bad_file naming file and line of the data, before the model runs for missing pictures and broken
// lines; mismatch for a log that was made with other settings, data, model or version; interrupted when `cancel` was set.
EvaluateReport evaluate(const EvaluateOptions& options, const ProgressSink& progress = {}, const std::atomic<bool>* cancel = nullptr);

}  // namespace statera
