// See evaluate.h: opens the model and the logs, runs the tasks one after another.
#include "api/evaluate.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>

#include "api/answers_file.h"
#include "api/guard.h"
#include "api/loaded.h"
#include "api/version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "eval/documents.h"
#include "eval/task.h"
#include "nn/buffers.h"
#include "nn/kv_cache.h"
#include "quant/sha256.h"

namespace statera {
namespace {

// A job the user asked for.
struct Entry {
  const Task* task = nullptr;
  std::string path, field, log;
};

const Task& task_named(const std::string& name) {
  std::vector<std::string> names;
  for (const Task* t : eval_tasks()) {
    if (t->name == name) return *t;
    names.emplace_back(t->name);
  }
  throw Error(ErrorKind::usage, "tasks: \"" + name + "\" is none of " + join(names, ", ") + did_you_mean(name, names));
}

std::vector<Entry> entries_of(const EvaluateOptions& options) {
  std::vector<const Task*> chosen;
  for (const std::string& name : split(options.tasks, ',')) {
    const Task* task = &task_named(std::string(trim(name)));
    if (std::find(chosen.begin(), chosen.end(), task) == chosen.end()) chosen.push_back(task);
  }
  std::vector<Entry> out;
  for (const Task* task : chosen) {
    int64_t files = 0;
    for (const std::string& given : options.data) {
      const size_t equals = given.find('=');
      const std::string before = given.substr(0, equals);
      const bool named =
          equals != given.npos && std::any_of(eval_tasks().begin(), eval_tasks().end(), [&](const Task* t) { return before == t->name; });
      if (!named && chosen.size() > 1) throw Error(ErrorKind::usage, "data: " + given + ": with several tasks, write TASK=PATH");
      if (named && std::none_of(chosen.begin(), chosen.end(), [&](const Task* t) { return before == t->name; }))
        throw Error(ErrorKind::usage, "data: " + given + ": \"" + before + "\" is not among --tasks");
      if (named && before != task->name) continue;
      Entry e{task, {}, {}, {}};
      std::tie(e.path, e.field) = split_field(named ? given.substr(equals + 1) : given);
      ++files;
      if (!options.out.empty()) e.log = options.out + "/" + task->name + (files > 1 ? "." + std::to_string(files) : "") + ".jsonl";
      out.push_back(std::move(e));
    }
    if (files == 0) throw Error(ErrorKind::usage, std::string("data: nothing for ") + task->name);
  }
  return out;
}

// The first place where two settings differ, as "key: a, now b".
std::string difference(const Json& before, const Json& now) {
  for (const auto& [key, value] : now.as_object()) {
    const Json* old = before.find(key);
    if (!old || !(*old == value)) return key + ": " + (old ? old->dump() : "nothing") + ", now " + value.dump();
  }
  return "other keys";
}

class FileLog : public SampleLog {
 public:
  // settings: what every line of the file must have been made with.
  FileLog(const std::string& path, const Json& settings) : file_(path) {
    const std::string text = read_file(path, uint64_t{1} << 36);
    const auto lines = json_lines(text);
    for (const auto& [number, line] : lines) {
      Json json = Json::parse(line, path + ": line " + std::to_string(number));
      std::string id = json.at("id").dump();
      lines_.insert_or_assign(std::move(id), std::move(json));
    }
    const Json* head = find(false);
    if (head && head->has("settings")) {
      if (!(head->at("settings") == settings))
        throw Error(ErrorKind::mismatch,
                    path + ": made with other settings (" + difference(head->at("settings"), settings) + "); give another --out");
    } else if (!lines_.empty()) {
      throw Error(ErrorKind::bad_file, path + ": not a log of samples (its first line has no settings)");
    } else {
      Json line = Json::object();
      line.set("id", false);
      line.set("settings", settings);
      file_.append(line);
    }
  }
  const Json* find(const Json& id) const override {
    const auto found = lines_.find(id.dump());
    return found == lines_.end() ? nullptr : &found->second;
  }
  void append(const Json& line) override { file_.append(line); }

 private:
  AnswersFile file_;
  std::map<std::string, Json> lines_;  // of earlier runs, by id as JSON text
};

void require_positive(const EvaluateOptions& o) {
  if (o.limit < 0) throw Error(ErrorKind::usage, "limit: must be 0 or more");
  if (o.max_running < 1) throw Error(ErrorKind::usage, "max_running: must be 1 or more");
  if (o.prefill_tokens < 1) throw Error(ErrorKind::usage, "prefill_tokens: must be 1 or more");
  if (o.max_length < 0 || o.stride < 0) throw Error(ErrorKind::usage, "max_length and stride: must be 0 or more");
}

// Tells one checkpoint from another without reading it: its config, the sizes of its files and a few pages spread over each.
std::string fingerprint(const Checkpoint& checkpoint) {
  constexpr uint64_t kPieces = 64, kPage = 4096;
  std::string seen = checkpoint.config().dump();
  for (const SafetensorsFile& file : checkpoint.files()) {
    const std::span<const std::byte> all = file.mapping().bytes();
    seen += " " + std::to_string(all.size());
    for (uint64_t i = 0; i < kPieces; ++i) {
      const uint64_t at = all.size() / kPieces * i;
      seen += sha256({reinterpret_cast<const char*>(all.data()) + at, static_cast<size_t>(std::min<uint64_t>(kPage, all.size() - at))});
    }
  }
  return sha256(seen).substr(0, 16);
}

Json settings_of(const EvaluateOptions& options, const Entry& entry, const TaskJob& job, const std::string& model,
                 const std::string& sha256) {
  Json out = Json::object();
  out.set("task", entry.task->name);
  out.set("model", options.model);
  out.set("model_fingerprint", model);
  out.set("data_sha256", sha256);
  if (!entry.field.empty()) out.set("field", entry.field);
  out.set("version", kVersion);
  out.set("dtype", options.dtype);
  out.set("compute", options.compute);
  out.set("vision_attention", options.vision_attention);
  out.set("kv_cache", options.kv_cache);
  out.set("max_running", options.max_running);
  out.set("prefill_tokens", options.prefill_tokens);
  const Json task = entry.task->settings(job);
  for (const auto& [key, value] : task.as_object()) out.set(key, value);
  return out;
}

EvaluateResult run_entry(const EvaluateOptions& options, const Entry& entry, const std::string& model, TaskJob job) {
  EvaluateResult out;
  out.task = entry.task->name;
  out.data = entry.path;
  out.log = entry.log;
  out.sha256 = sha256_file(entry.path);
  job.path = entry.path;
  job.field = entry.field;
  job.media = media_options(options.media, folder_of(entry.path));
  out.settings = settings_of(options, entry, job, model, out.sha256);
  std::unique_ptr<FileLog> log;
  if (!entry.log.empty()) log = std::make_unique<FileLog>(entry.log, out.settings);
  job.log = log.get();
  TaskResult result = entry.task->run(job);
  out.unit = result.unit;
  out.error_over = result.error_over;
  out.samples = result.samples;
  out.resumed = result.resumed;
  for (const Score& s : result.scores) out.scores.push_back({s.name, s.value, s.standard_error});
  out.counts = std::move(result.counts);
  return out;
}

Json report_json(const EvaluateReport& report) {
  Json j = Json::object();
  j.set("model", report.model);
  j.set("version", kVersion);
  Json list = Json::array();
  for (const EvaluateResult& r : report.results) list.push(r.to_json());
  j.set("results", std::move(list));
  return j;
}

EvaluateReport run(const EvaluateOptions& options, const ProgressSink& sink, const std::atomic<bool>* cancel) {
  const auto start = std::chrono::steady_clock::now();
  require_positive(options);
  parse_kv_form(options.kv_cache);
  const std::vector<Entry> entries = entries_of(options);
  for (const Entry& e : entries) {
    if (!is_file(e.path)) throw Error(ErrorKind::not_found, e.path + ": no such file");
  }
  c10::InferenceMode no_gradients;
  const KeptBuffers kept;
  LoadOptions load;
  load.dtype = options.dtype;
  load.compute = options.compute;
  load.vision_attention = options.vision_attention;
  const Loaded loaded = open_model(options.model, load);
  const PromptParts parts = read_prompt_parts(options.model, *loaded.model);
  TaskJob job{*loaded.model,
              parts,
              read_generation_defaults(loaded.checkpoint.generation_config(), loaded.checkpoint.config()),
              {},
              {},
              {},
              {},
              {},
              nullptr,
              sink,
              cancel};
  if (job.defaults.eos.empty() && parts.tokenizer && parts.tokenizer->eos_id()) job.defaults.eos.push_back(*parts.tokenizer->eos_id());
  job.limits.max_running = options.max_running;
  job.limits.prefill_tokens = options.prefill_tokens;
  job.limits.kv_cache = options.kv_cache;
  job.options = {options.max_length, options.stride, options.metric, options.prompt, options.max_new_tokens, options.limit};
  for (const Entry& e : entries) e.task->settings(job);  // wrong options of a later task are said now
  if (!options.out.empty()) {
    std::error_code failed;
    std::filesystem::create_directories(options.out, failed);
    if (failed) throw io_error(options.out, failed.value());
  }
  EvaluateReport report;
  report.model = options.model;
  const std::string model = fingerprint(loaded.checkpoint);
  for (const Entry& e : entries) report.results.push_back(run_entry(options, e, model, job));
  if (!options.out.empty()) write_file_atomic(options.out + "/report.json", report_json(report).dump(2) + "\n");
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace

EvaluateReport evaluate(const EvaluateOptions& options, const ProgressSink& progress, const std::atomic<bool>* cancel) {
  return guarded([&] { return run(options, progress, cancel); });
}

Json EvaluateResult::to_json() const {
  Json j = Json::object();
  j.set("task", task);
  j.set("data", data);
  j.set("data_sha256", sha256);
  j.set("settings", settings);
  j.set("n", samples);
  j.set("unit", unit);
  j.set("score_name", scores.at(0).name);
  j.set("score", scores.at(0).value);
  j.set("standard_error", scores.at(0).standard_error ? Json(*scores.at(0).standard_error) : Json());
  j.set("standard_error_over", error_over);
  Json all = Json::object();
  for (const EvaluateScore& s : scores) {
    Json one = Json::object();
    one.set("value", s.value);
    one.set("standard_error", s.standard_error ? Json(*s.standard_error) : Json());
    all.set(s.name, std::move(one));
  }
  j.set("scores", std::move(all));
  for (const auto& [key, value] : counts.as_object()) j.set(key, value);
  if (!log.empty()) j.set("log", log);
  return j;
}

Json EvaluateReport::to_json() const {
  Json j = report_json(*this);
  j.set("seconds", seconds);
  return j;
}

std::string EvaluateReport::to_text() const {
  std::string t;
  for (const EvaluateResult& r : results) {
    t += fmt::format("{}  {}  {} {}", r.task, r.data, r.samples, r.unit);
    if (r.resumed > 0) t += fmt::format(" ({} from an earlier run)", r.resumed);
    t += "\n";
    for (const EvaluateScore& s : r.scores) {
      t += fmt::format("  {:<18}{:>12.6g}", s.name, s.value);
      if (s.standard_error) t += fmt::format("  ± {:.3g} (over {})", *s.standard_error, r.error_over);
      t += "\n";
    }
    for (const auto& [key, value] : r.counts.as_object()) t += fmt::format("  {:<18}{:>12}\n", key, value.dump());
    if (!r.log.empty()) t += "  log " + r.log + "\n";
  }
  return t + fmt::format("{}; {}\n", model, human_seconds(seconds));
}

}  // namespace statera
