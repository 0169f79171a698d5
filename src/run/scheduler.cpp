// See scheduler.h: admission, the choice between the two passes, and what happens to their logits.
#include "run/scheduler.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <limits>
#include <mutex>
#include <set>

#include "base/profile.h"
#include "run/batch.h"
#include "run/sequence.h"

namespace statera {

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::failed:
      return "failed";
  }
  throw Bug("unnamed FinishReason");
}

GenerationDefaults read_generation_defaults(const Json& generation, const Json& config) {
  GenerationDefaults out;
  if (generation.is_object()) out.sampling = sampling_of_generation_config(generation);
  const Json* text = config.get("text_config");
  const Json* eos = generation.get("eos_token_id");
  std::string where = "generation_config.json: eos_token_id";
  if (!eos) {
    eos = config.get("eos_token_id");
    if (!eos && text) eos = text->get("eos_token_id");
    where = "config.json: eos_token_id";
  }
  if (eos && eos->is_array()) {
    for (const Json& id : eos->as_array()) out.eos.push_back(id.as_int(where));
  } else if (eos) {
    out.eos.push_back(eos->as_int(where));
  }
  return out;
}

using Owned = std::unique_ptr<Sequence>;

struct Scheduler::State {
  const Model& model;
  std::optional<Tokenizer> tokenizer;
  GenerationDefaults defaults;
  SchedulerOptions options;
  KvForm kv_form;

  std::mutex guard;  // of the four below; the rest belongs to the thread that steps
  std::deque<Owned> inbox;
  std::set<int64_t> cancelled;
  int64_t submitted = 0;
  SchedulerStats stats;

  std::deque<Owned> waiting;
  std::vector<Owned> running;

  int64_t context() const {
    if (options.max_context > 0) return options.max_context;
    int64_t limit = model.limits().max_positions;
    return limit > 0 ? limit : std::numeric_limits<int32_t>::max();
  }
  void collect();
  std::vector<Sequence*> admit();
  std::vector<Sequence*> outdated();
  void pass(const std::vector<Sequence*>& batch, bool prompt);
  void hand_out(const std::vector<Sequence*>& batch, at::Tensor logits);
  void fail(const std::vector<Sequence*>& batch, const Error& error);
  void retire(Sequence* done);
};

// Takes in what other threads left, and ends what was cancelled.
void Scheduler::State::collect() {
  {
    std::lock_guard lock(guard);
    for (auto& s : inbox) waiting.push_back(std::move(s));
    inbox.clear();
    for (auto& s : waiting) {
      if (cancelled.count(s->id())) s->cancel();
    }
    for (auto& s : running) {
      if (cancelled.count(s->id())) s->cancel();
    }
    cancelled.clear();
  }
  auto sweep = [](auto& sequences) {
    std::erase_if(sequences, [](const Owned& s) {
      if (!s->cancelled()) return false;
      s->finish(FinishReason::cancelled);
      return true;
    });
  };
  sweep(waiting);
  sweep(running);
}

// Moves waiting sequences, first come first served, to `running` within the limits; those are to be read.
std::vector<Sequence*> Scheduler::State::admit() {
  std::vector<Sequence*> batch;
  int64_t read = 0, held = 0;
  for (auto& s : running) held += s->tokens_at_most();
  while (!waiting.empty() && static_cast<int64_t>(running.size()) < std::max<int64_t>(1, options.max_running)) {
    Sequence& next = *waiting.front();
    if (!batch.empty() && read + next.tokens() > options.prefill_tokens) break;
    if (!running.empty() && options.max_kv_tokens > 0 && held + next.tokens_at_most() > options.max_kv_tokens) break;
    read += next.tokens();
    held += next.tokens_at_most();
    batch.push_back(&next);
    running.push_back(std::move(waiting.front()));
    waiting.pop_front();
  }
  return batch;
}

// Running sequences whose cached keys do not survive the next token; their caches are emptied.
std::vector<Sequence*> Scheduler::State::outdated() {
  std::vector<Sequence*> out;
  for (auto& s : running) {
    if (s->cache().length() == 0 || model.language().cache_valid(s->cache().length(), s->tokens())) continue;
    s->cache().truncate(0);
    out.push_back(s.get());
  }
  return out;
}

void Scheduler::State::retire(Sequence* done) {
  std::erase_if(running, [&](const Owned& s) { return s.get() == done; });
}

void Scheduler::State::fail(const std::vector<Sequence*>& batch, const Error& error) {
  for (Sequence* s : batch) {
    s->cancelled() ? s->finish(FinishReason::cancelled) : s->finish(FinishReason::failed, error);
    retire(s);
  }
}

void Scheduler::State::hand_out(const std::vector<Sequence*>& batch, at::Tensor logits) {
  const profile::Span span("sampling");
  logits = logits.to(at::kFloat).contiguous();
  const auto width = static_cast<size_t>(logits.size(1));
  for (size_t i = 0; i < batch.size(); ++i) {
    bool done = true;
    try {
      done = batch[i]->advance({logits.data_ptr<float>() + i * width, width});
    } catch (const Error& e) {
      batch[i]->finish(FinishReason::failed, e);
    }
    if (done) retire(batch[i]);
  }
}

void Scheduler::State::pass(const std::vector<Sequence*>& batch, bool prompt) {
  auto start = std::chrono::steady_clock::now();
  int64_t tokens = 0;
  for (Sequence* s : batch) tokens += prompt ? s->tokens() : 1;
  at::Tensor logits;
  try {
    logits = prompt ? prefill(model, batch) : decode(model, batch);
  } catch (const Error& e) {
    return fail(batch, e);
  } catch (...) {  // their caches are no longer to be trusted
    fail(batch, Error(ErrorKind::unsupported, "the forward pass failed"));
    throw;
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (Sequence* s : batch) {
    (prompt ? s->usage().prefill_seconds : s->usage().decode_seconds) += seconds;
    if (prompt && model.language().cache_valid(s->tokens(), s->tokens_at_most())) s->drop_media();
  }
  {
    std::lock_guard lock(guard);
    (prompt ? stats.prefill_tokens : stats.decode_tokens) += tokens;
    (prompt ? stats.prefill_seconds : stats.decode_seconds) += seconds;
    ++stats.passes;
  }
  hand_out(batch, logits);
}

Scheduler::Scheduler(const Model& model, std::optional<Tokenizer> tokenizer, GenerationDefaults defaults, SchedulerOptions options)
    : s_(new State{model, std::move(tokenizer), std::move(defaults), options, parse_kv_form(options.kv_cache), {}, {}, {}, 0, {}, {}, {}}) {}

Scheduler::~Scheduler() = default;

int64_t Scheduler::submit(GenerateRequest request) {
  c10::InferenceMode no_gradients;
  const at::Tensor& ids = request.inputs.input_ids;
  check(ids.defined() && ids.dim() == 1, "submit: input_ids lie in one row");
  if (ids.size(0) == 0) throw Error(ErrorKind::usage, "the prompt is empty");
  if (ids.size(0) >= s_->context()) {
    throw Error(ErrorKind::usage,
                "the prompt has " + std::to_string(ids.size(0)) + " tokens, the context holds " + std::to_string(s_->context()));
  }
  if (request.max_new_tokens < 1) throw Error(ErrorKind::usage, "max_new_tokens: must be 1 or more");
  if (!request.stop.empty() && !s_->tokenizer) throw Error(ErrorKind::usage, "stop strings need a tokenizer, and the checkpoint has none");
  int64_t vocabulary = s_->model.limits().vocab_size, low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  if (low < 0 || high >= vocabulary) {
    throw Error(ErrorKind::mismatch,
                "token id " + std::to_string(low < 0 ? low : high) + " is outside the model's vocabulary of " + std::to_string(vocabulary));
  }
  Sampling sampling = resolve_sampling(request.sampling, s_->defaults.sampling);
  sampling.logit_bias = request.logit_bias;
  std::unique_lock lock(s_->guard);
  int64_t id = s_->submitted++;
  lock.unlock();
  auto made =
      std::make_unique<Sequence>(id, std::move(request), std::move(sampling), s_->model, s_->tokenizer, s_->defaults.eos, s_->context(), s_->kv_form);
  lock.lock();
  s_->inbox.push_back(std::move(made));
  return id;
}

void Scheduler::cancel(int64_t request) {
  std::lock_guard lock(s_->guard);
  s_->cancelled.insert(request);
}

bool Scheduler::step() {
  c10::InferenceMode no_gradients;
  s_->collect();
  std::vector<Sequence*> batch = s_->admit();
  bool prompt = !batch.empty();
  if (!prompt) {
    batch = s_->outdated();
    prompt = !batch.empty();
  }
  if (!prompt) {
    for (auto& s : s_->running) batch.push_back(s.get());
  }
  if (batch.empty()) return false;
  s_->pass(batch, prompt);
  return true;
}

void Scheduler::run() {
  while (step()) {
  }
}

Answer Scheduler::generate(GenerateRequest request) {
  std::optional<Answer> answer;
  auto inner = std::move(request.on_done);
  request.on_done = [&](int64_t id, Answer a) {
    if (inner) inner(id, a);
    answer = std::move(a);
  };
  submit(std::move(request));
  while (!answer && step()) {
  }
  check(answer.has_value(), "generate: no answer");
  if (answer->error) throw *answer->error;
  return std::move(*answer);
}

SchedulerStats Scheduler::stats() const {
  std::lock_guard lock(s_->guard);
  return s_->stats;
}

int64_t Scheduler::kv_bytes() const {
  int64_t bytes = 0;
  for (auto& s : s_->running) bytes += s->cache().bytes();
  return bytes;
}

int64_t Scheduler::context() const { return s_->context(); }
const GenerationDefaults& Scheduler::defaults() const { return s_->defaults; }

}  // namespace statera
