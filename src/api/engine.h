// Engine: a checkpoint loaded for generation: conversations in, streamed answers out. Chat, batch files and the server use it.
// Any thread may submit and cancel; one thread steps.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/media_flags.h"
#include "base/json.h"
#include "run/answer.h"
#include "text/conversation.h"

namespace statera {

struct EngineOptions {
  std::string model;
  std::string dtype = "fp32", compute = "auto", vision_attention = "auto", kv_cache = "auto";
  int64_t max_running = 16, prefill_tokens = 2048, max_kv_tokens = 0, max_context = 0;
  static constexpr std::string_view positional[] = {"model"};
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder");
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; weights keep their stored precision");
    v("compute", compute, "how low-bit weights meet activations: int8 (rounded to 8 bits, products in integers), exact, or auto: int8 for layers that can");
    v("vision_attention", vision_attention, "how patches of a picture attend to each other: exact, int8 (rounded to 8 bits, both products in integers), or auto: int8 where layers of the tower compute in integers, too");
    v("kv_cache", kv_cache, "what keys and values are kept in: auto (as activations are), fp16 or int8 (a scale for each token and head)");
    v("max_running", max_running, "sequences that advance together");
    v("prefill_tokens", prefill_tokens, "prompt tokens read in one pass");
    v("max_kv_tokens", max_kv_tokens, "tokens in the caches of all running sequences; 0: no limit");
    v("max_context", max_context, "tokens of one sequence; 0: the model's limit");
  }
};

struct GenerateOptions {
  int64_t max_new_tokens = 1024, min_new_tokens = 0;
  SamplingOptions sampling;  // what is absent comes from the checkpoint's generation_config.json
  std::vector<std::string> stop;
  bool ignore_eos = false, raw = false, add_vision_id = false;
  int64_t logprobs = -1;
  template <class V>
  void fields(V& v) {
    v("max_new_tokens", max_new_tokens, "tokens of an answer at most");
    v("min_new_tokens", min_new_tokens, "tokens before which no end-of-text token is chosen");
    sampling.fields(v);
    v("stop", stop, "text that ends an answer; may be given several times");
    v("ignore_eos", ignore_eos, "go on after end-of-text tokens");
    v("raw", raw, "no chat template: the text itself is the prompt");
    v("add_vision_id", add_vision_id, "number pictures and clips in the prompt, where the template can");
    v("logprobs", logprobs, "alternatives to report for each token; -1: none");
  }
};

struct EngineStats {
  int64_t prefill_tokens = 0, decode_tokens = 0, passes = 0, kv_bytes = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  Json to_json() const;
  std::string to_text() const;  // "prompt 812 tokens at 240.1/s, answer 130 tokens at 18.2/s"
};

// Called by the thread that steps; must not throw and must not step.
struct Callbacks {
  std::function<void(const TokenEvent&)> on_token;
  std::function<void(int64_t request, Answer)> on_done;
  const std::atomic<bool>* cancel = nullptr;
};

class Engine {
 public:
  // Error(not_found, bad_file, unsupported, ...) naming the file.
  static Engine open(const EngineOptions& options);
  Engine(Engine&&) noexcept;
  ~Engine();

  // Prepares the prompt (template, media, ids) and queues it. Errors as make_prompt of run/prompt.h and bad options.
  int64_t submit(const Conversation& conversation, const GenerateOptions& options, const MediaFlags& media, Callbacks callbacks);
  void cancel(int64_t request);
  // One forward pass; false when nothing is left.
  bool step();
  void run();
  // One conversation to its end. A failed answer throws its Error.
  Answer chat(const Conversation& conversation, const GenerateOptions& options, const MediaFlags& media, Callbacks callbacks = {});

  EngineStats stats() const;
  int64_t context() const;  // tokens a sequence may have
  bool sees() const;        // takes pictures
  const EngineOptions& options() const;
  const std::string& model() const { return options().model; }  // the folder

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> s_;
};

// What every answer that is kept says: {"finish_reason", "usage": {...}, "seed", "model", "version"}.
Json answer_json(const Answer& answer, const std::string& model);

}  // namespace statera
