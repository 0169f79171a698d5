// See engine.h.
#include "api/engine.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <future>

#include "api/guard.h"
#include "api/load.h"
#include "api/loaded.h"
#include "api/version.h"
#include "nn/buffers.h"
#include "nn/kv_cache.h"
#include "run/prompt.h"
#include "run/scheduler.h"

namespace statera {

struct Engine::State {
  EngineOptions options;
  KeptBuffers kept;
  Loaded loaded;
  PromptParts parts;
  std::unique_ptr<Scheduler> scheduler;
};

Engine Engine::open(const EngineOptions& options) {
  return guarded([&] {
    parse_kv_form(options.kv_cache);  // said before the model is read
    auto s = std::make_unique<State>();
    s->options = options;
    LoadOptions load;
    load.dtype = options.dtype;
    load.compute = options.compute;
    load.vision_attention = options.vision_attention;
    auto tokenizer = std::async(std::launch::async, [&] { return read_tokenizer(options.model); });
    s->loaded = open_model(options.model, load);
    const Model& model = *s->loaded.model;
    s->parts = read_prompt_parts(options.model, model, tokenizer.get());
    GenerationDefaults defaults = read_generation_defaults(s->loaded.checkpoint.generation_config(), s->loaded.checkpoint.config());
    if (defaults.eos.empty() && s->parts.tokenizer && s->parts.tokenizer->eos_id()) defaults.eos.push_back(*s->parts.tokenizer->eos_id());
    SchedulerOptions limits{options.max_running, options.prefill_tokens, options.max_kv_tokens, options.max_context, options.kv_cache};
    s->scheduler = std::make_unique<Scheduler>(model, s->parts.tokenizer, std::move(defaults), limits);
    return Engine(std::move(s));
  });
}

Engine::Engine(std::unique_ptr<State> state) : s_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine::~Engine() = default;

int64_t Engine::submit(const Conversation& conversation, const GenerateOptions& options, const MediaFlags& media, Callbacks callbacks) {
  return guarded([&] {
    c10::InferenceMode no_gradients;
    PromptOptions how;
    how.raw = options.raw;
    how.render.add_vision_id = options.add_vision_id;
    how.media = media_options(media);
    GenerateRequest request;
    request.inputs = make_prompt(conversation, s_->parts, how).inputs;
    request.max_new_tokens = options.max_new_tokens;
    request.min_new_tokens = options.min_new_tokens;
    request.sampling = options.sampling;
    request.stop = options.stop;
    request.ignore_eos = options.ignore_eos;
    request.logprobs = options.logprobs;
    request.cancel = callbacks.cancel;
    request.on_token = std::move(callbacks.on_token);
    request.on_done = std::move(callbacks.on_done);
    return s_->scheduler->submit(std::move(request));
  });
}

void Engine::cancel(int64_t request) { s_->scheduler->cancel(request); }

bool Engine::step() {
  return guarded([&] { return s_->scheduler->step(); });
}

void Engine::run() {
  while (step()) {
  }
}

Answer Engine::chat(const Conversation& conversation, const GenerateOptions& options, const MediaFlags& media, Callbacks callbacks) {
  std::optional<Answer> answer;
  auto inner = std::move(callbacks.on_done);
  callbacks.on_done = [&](int64_t id, Answer a) {
    if (inner) inner(id, a);
    answer = std::move(a);
  };
  submit(conversation, options, media, std::move(callbacks));
  while (!answer && step()) {
  }
  check(answer.has_value(), "chat: no answer");
  if (answer->error) throw *answer->error;
  return std::move(*answer);
}

EngineStats Engine::stats() const {
  SchedulerStats s = s_->scheduler->stats();
  return {s.prefill_tokens, s.decode_tokens, s.passes, s_->scheduler->kv_bytes(), s.prefill_seconds, s.decode_seconds};
}

int64_t Engine::context() const { return s_->scheduler->context(); }
bool Engine::sees() const { return s_->parts.processor.has_value(); }
const EngineOptions& Engine::options() const { return s_->options; }

Json EngineStats::to_json() const {
  Json out = Json::object();
  out.set("prefill_tokens", prefill_tokens);
  out.set("prefill_seconds", prefill_seconds);
  out.set("prefill_tokens_per_second", prefill_seconds > 0 ? static_cast<double>(prefill_tokens) / prefill_seconds : 0);
  out.set("decode_tokens", decode_tokens);
  out.set("decode_seconds", decode_seconds);
  out.set("decode_tokens_per_second", decode_seconds > 0 ? static_cast<double>(decode_tokens) / decode_seconds : 0);
  out.set("passes", passes);
  return out;
}

std::string EngineStats::to_text() const {
  auto rate = [](int64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0; };
  return fmt::format("prompts {} tokens at {:.1f}/s, answers {} tokens at {:.1f}/s", prefill_tokens, rate(prefill_tokens, prefill_seconds),
                     decode_tokens, rate(decode_tokens, decode_seconds));
}

Json answer_json(const Answer& answer, const std::string& model) {
  Json out = Json::object();
  if (answer.error) {
    Json error = Json::object();
    error.set("kind", to_string(answer.error->kind()));
    error.set("message", answer.error->message());
    out.set("error", error);
  } else {
    out.set("text", answer.text);
    out.set("finish_reason", to_string(answer.finish));
    Json usage = Json::object();
    usage.set("prompt_tokens", answer.usage.prompt_tokens);
    usage.set("completion_tokens", answer.usage.completion_tokens);
    out.set("usage", usage);
    out.set("seed", answer.seed);
    if (!answer.logprobs.empty()) {
      Json list = Json::array();
      for (const Logprobs& l : answer.logprobs) list.push(l.token);
      out.set("logprobs", list);
    }
  }
  out.set("model", model);
  out.set("version", kVersion);
  return out;
}

}  // namespace statera
