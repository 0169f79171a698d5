// See generate.h.
#include "api/generate.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "api/answers_file.h"
#include "api/paths.h"
#include "api/version.h"
#include "base/error.h"
#include "base/fields.h"
#include "base/strings.h"

namespace statera {
namespace {

// One run over the open requests: keeps the engine fed, and writes what is done as soon as everything before it is.
class Batch {
 public:
  Batch(Engine& engine, AnswersFile& file, GenerateReport& report, Progress& progress)
      : engine_(engine), file_(file), report_(report), progress_(progress) {}
  // What is still under way ends here: its callbacks point into this.
  ~Batch() {
    for (int64_t id : submitted_) engine_.cancel(id);
    try {
      while (waiting_ > 0 && engine_.step()) {
      }
    } catch (...) {  // already on the way out
    }
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void submit(const Request& request, const GenerateOptions& defaults, const MediaFlags& media, size_t index,
              const std::atomic<bool>* cancel) {
    size_t place = next_++;
    ids_.push_back(request.id);
    try {
      GenerateOptions options = defaults;
      fields_from_json(request.options, options, "request " + request.id.dump());
      if (!request.options.has("seed"))
        options.sampling.seed = static_cast<int64_t>((static_cast<uint64_t>(*defaults.sampling.seed) + index) & INT64_MAX);
      Callbacks callbacks;
      callbacks.cancel = cancel;
      callbacks.on_done = [this, place](int64_t, Answer a) { done(place, std::move(a)); };
      submitted_.push_back(engine_.submit(request.conversation, options, media, std::move(callbacks)));
      ++waiting_;
    } catch (const Error& e) {  // this request's own fault: a picture that is none, a prompt too long
      Answer failed;
      failed.finish = FinishReason::failed;
      failed.error = e;
      ++waiting_;
      done(place, std::move(failed));
    }
  }
  size_t waiting() const { return waiting_; }
  // Writes the finished answers at the head. Not inside callbacks: writing may throw.
  void write() {
    for (auto it = finished_.begin(); it != finished_.end() && it->first == written_; it = finished_.erase(it), ++written_) {
      if (it->second.finish == FinishReason::cancelled)
        throw Error(ErrorKind::interrupted, "interrupted; what is answered stays, and the next run goes on from there");
      Json line = Json::object();
      line.set("id", ids_[written_]);
      Json rest = answer_json(it->second, engine_.model());
      for (const auto& [key, value] : rest.as_object()) line.set(key, value);
      file_.append(line);
      ++(it->second.error ? report_.failed : report_.answered);
      progress_.advance(1, "request " + ids_[written_].dump());
    }
  }

 private:
  void done(size_t place, Answer answer) {
    finished_.emplace(place, std::move(answer));
    --waiting_;
  }
  Engine& engine_;
  AnswersFile& file_;
  GenerateReport& report_;
  Progress& progress_;
  std::vector<Json> ids_;              // of the submitted requests
  std::vector<int64_t> submitted_;     // the engine's numbers
  std::map<size_t, Answer> finished_;  // by place, not written yet
  size_t next_ = 0, written_ = 0, waiting_ = 0;
};

void check_known(const std::vector<Request>& requests, const AnswersFile& answers, const GenerateFileOptions& file) {
  std::set<std::string> known;
  for (const Request& r : requests) known.insert(r.id.dump());
  for (const std::string& id : answers.ids()) {
    if (!known.count(id))
      throw Error(ErrorKind::mismatch, file.output + ": answers request " + id + ", which " + file.input + " does not have");
  }
}

}  // namespace

GenerateReport generate_file(Engine& engine, const GenerateFileOptions& file, const GenerateOptions& given, const MediaFlags& media_given,
                             const ProgressSink& sink, const std::atomic<bool>* cancel) {
  std::vector<Request> requests = read_requests(file.input);
  AnswersFile answers(file.output);
  check_known(requests, answers, file);
  GenerateOptions options = given;
  if (!options.sampling.seed) options.sampling.seed = resolve_sampling({}, {}).seed;
  MediaFlags media = media_given;
  if (media.base_dir.empty()) media.base_dir = folder_of(file.input);
  GenerateReport report;
  report.requests = static_cast<int64_t>(requests.size());
  report.skipped = static_cast<int64_t>(answers.ids().size());
  Progress progress("generate", static_cast<double>(requests.size()), "requests", sink);
  progress.resume_at(static_cast<double>(report.skipped));
  Batch batch(engine, answers, report, progress);
  const size_t window = static_cast<size_t>(2 * engine.options().max_running);  // pictures of later requests are not loaded yet
  for (size_t i = 0; i < requests.size(); ++i) {
    if (answers.ids().count(requests[i].id.dump())) continue;
    while (batch.waiting() >= window && engine.step()) batch.write();
    batch.submit(requests[i], options, media, i, cancel);
    batch.write();
  }
  do batch.write();
  while (engine.step());
  batch.write();
  progress.finish();
  report.speed = engine.stats();
  return report;
}

Json GenerateReport::to_json() const {
  Json out = Json::object();
  out.set("requests", requests);
  out.set("skipped", skipped);
  out.set("answered", answered);
  out.set("failed", failed);
  out.set("speed", speed.to_json());
  return out;
}

std::string GenerateReport::to_text() const {
  std::string out = fmt::format("{} requests: {} answered", requests, answered);
  if (skipped > 0) out += fmt::format(", {} answered before", skipped);
  if (failed > 0) out += fmt::format(", {} failed (see their lines)", failed);
  return out + "; " + speed.to_text();
}

}  // namespace statera
