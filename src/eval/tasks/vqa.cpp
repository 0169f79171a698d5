// vqa: questions about pictures and clips, answered greedily and scored against the answers of people (eval/answers.h). Questions are taken
// in groups of fixed size, each group's generation starting empty, so that an answer does not depend on where an earlier run was killed.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/strings.h"
#include "eval/answers.h"
#include "eval/questions.h"
#include "eval/statistics.h"
#include "eval/task.h"

namespace statera {
namespace {

constexpr std::string_view kSlot = "{question}";
constexpr const char* kPrompt = "{question}\nAnswer the question using a single word or phrase.";

std::string template_of(const TaskOptions& o) { return o.prompt.empty() ? kPrompt : o.prompt; }

Json settings(const TaskJob& job) {
  const TaskOptions& o = job.options;
  if (!answer_metric(o.metric)) {
    std::vector<std::string> names;
    for (const AnswerMetric& m : answer_metrics()) names.emplace_back(m.name);
    throw Error(ErrorKind::usage, "metric: \"" + o.metric + "\" is none of " + join(names, ", ") + did_you_mean(o.metric, names));
  }
  if (template_of(o).find(kSlot) == std::string::npos) throw Error(ErrorKind::usage, "prompt: has no {question} in it");
  if (o.max_new_tokens < 1) throw Error(ErrorKind::usage, "max_new_tokens: must be 1 or more");
  Json out = Json::object();
  out.set("metric", o.metric);
  out.set("prompt", template_of(o));
  out.set("max_new_tokens", o.max_new_tokens);
  out.set("decoding", "greedy");
  return out;
}

std::string prompt_of(const TaskJob& job, const Question& q) {
  std::string out = template_of(job.options);
  for (size_t at = out.find(kSlot); at != out.npos; at = out.find(kSlot, at + q.question.size())) out.replace(at, kSlot.size(), q.question);
  return out;
}

// One user turn: pictures, then the clip, then the words.
Conversation conversation_of(const TaskJob& job, const Question& q) {
  if (q.video.is_null()) return Conversation::user(prompt_of(job, q), q.images);
  Json items = Json::array();
  const auto add = [&](const char* kind, Json value) -> Json& {
    Json item = Json::object();
    item.set("type", kind);
    item.set(kind, std::move(value));
    items.push(std::move(item));
    return items.items().back();
  };
  for (const std::string& image : q.images) add("image", image);
  Json& clip = add("video", q.video);
  if (q.sample_fps) clip.set("sample_fps", *q.sample_fps);
  add("text", prompt_of(job, q));
  Json message = Json::object();
  message.set("role", "user");
  message.set("content", std::move(items));
  Json messages = Json::array();
  messages.push(std::move(message));
  return Conversation::from_json(messages, "question");
}

// The most probable token at each step, whatever the checkpoint recommends.
SamplingOptions greedy() {
  SamplingOptions out;
  out.temperature = 0;
  out.repetition_penalty = 1;
  out.presence_penalty = out.frequency_penalty = 0;
  out.seed = 0;
  return out;
}

Json line_of(const TaskJob& job, const Question& q, const Answer& a) {
  Json line = Json::object();
  line.set("id", q.id);
  line.set("prompt", prompt_of(job, q));
  line.set("answer", Json(q.answers));
  line.set("prediction", trim(a.text));
  const AnswerMetric& metric = *answer_metric(job.options.metric);
  line.set("score", metric.score(trim(a.text), q.answers));
  if (metric.also) line.set(metric.also_name, metric.also(trim(a.text), q.answers));
  line.set("finish_reason", to_string(a.finish));
  return line;
}

// Answers the questions and logs each as soon as those before it are.
class Group {
 public:
  Group(const TaskJob& job, Scheduler& scheduler, std::span<const Question> questions, Progress& progress)
      : job_(job), scheduler_(scheduler), questions_(questions), progress_(progress) {}

  std::vector<Json> run() {
    for (size_t i = 0; i < questions_.size(); ++i) with_context(questions_[i].where, [&] { submit(i); });
    do write();
    while (scheduler_.step());
    write();
    check(lines_.size() == questions_.size(), "vqa: an answer is missing");
    return std::move(lines_);
  }

 private:
  void submit(size_t i) {
    const Question& q = questions_[i];
    PromptOptions how;
    how.media = job_.media;
    GenerateRequest request;
    request.inputs = make_prompt(conversation_of(job_, q), job_.parts, how).inputs;
    request.max_new_tokens = job_.options.max_new_tokens;
    request.sampling = greedy();
    request.cancel = job_.cancel;
    request.on_done = [this, i](int64_t, Answer a) { done_.emplace(i, std::move(a)); };
    scheduler_.submit(std::move(request));
  }
  void write() {
    for (auto it = done_.find(lines_.size()); it != done_.end(); it = done_.find(lines_.size())) {
      const Question& q = questions_[lines_.size()];
      const Answer& a = it->second;
      if (a.finish == FinishReason::cancelled) throw Error(ErrorKind::interrupted, "interrupted; the log keeps what is done");
      if (a.error) throw a.error->within(q.where);
      const Json* old = job_.log ? job_.log->find(q.id) : nullptr;
      lines_.push_back(old ? *old : line_of(job_, q, a));
      if (!old && job_.log) job_.log->append(lines_.back());
      progress_.advance(1, "question " + q.id.dump());
    }
  }
  const TaskJob& job_;
  Scheduler& scheduler_;
  std::span<const Question> questions_;
  Progress& progress_;
  std::map<size_t, Answer> done_;
  std::vector<Json> lines_;
};

// The lines of a group that is in the log completely.
std::vector<Json> logged(const TaskJob& job, std::span<const Question> group, int64_t& resumed) {
  std::vector<Json> out;
  if (!job.log) return out;
  for (const Question& q : group) {
    const Json* line = job.log->find(q.id);
    if (line) out.push_back(*line);
  }
  resumed += static_cast<int64_t>(out.size());
  if (out.size() < group.size()) out.clear();
  return out;
}

std::vector<Question> questions_of(const TaskJob& job, const AnswerMetric& metric) {
  std::vector<Question> out = read_questions(job.path, job.media.fetch.base_dir);
  if (job.options.limit > 0 && static_cast<int64_t>(out.size()) > job.options.limit) out.resize(static_cast<size_t>(job.options.limit));
  for (const Question& q : out) {
    if (metric.accepts && !std::ranges::all_of(q.answers, metric.accepts))
      throw Error(ErrorKind::bad_file, q.where + ": answers: expected " + metric.expected + " for metric " + job.options.metric);
  }
  return out;
}

TaskResult run(const TaskJob& job) {
  const AnswerMetric& metric = *answer_metric(job.options.metric);
  const std::vector<Question> questions = questions_of(job, metric);
  Scheduler scheduler(job.model, job.parts.tokenizer, job.defaults, job.limits);
  Progress progress("vqa", static_cast<double>(questions.size()), "questions", job.progress);
  TaskResult out;
  std::vector<double> scores, also;
  int64_t cut = 0;
  const auto group = static_cast<size_t>(2 * std::max<int64_t>(1, job.limits.max_running));
  for (size_t from = 0; from < questions.size(); from += group) {
    const std::span<const Question> part(questions.data() + from, std::min(group, questions.size() - from));
    std::vector<Json> lines = logged(job, part, out.resumed);
    if (lines.empty()) {
      lines = Group(job, scheduler, part, progress).run();
    } else {
      progress.resume_at(static_cast<double>(from + part.size()));
    }
    for (const Json& line : lines) {
      scores.push_back(line.at("score").as_double());
      if (metric.also) also.push_back(line.at(metric.also_name).as_double());
      cut += line.get_string("finish_reason", "") == "length";
    }
  }
  progress.finish();
  out.unit = out.error_over = "questions";
  out.samples = static_cast<int64_t>(scores.size());
  const auto tell = [&](std::string name, const std::vector<double>& values) {
    const Estimate mean = mean_of(values);
    out.scores.push_back({std::move(name), mean.value, mean.standard_error});
  };
  tell(job.options.metric, scores);
  if (metric.also) tell(metric.also_name, also);
  out.counts.set("cut_answers", cut);
  return out;
}

}  // namespace

extern const Task kTask_vqa{"vqa", "questions about pictures: .jsonl with image, question, answers", settings, run};

}  // namespace statera
