// Scheduler: generation over a loaded Model by continuous batching: waiting prompts are read in ragged passes within a token budget,
// then every running sequence advances by one token per pass. Chat, batch files, the server and evaluation generate through it.
// No files, no templates (prompt.h); one thread runs step(), any thread may submit and cancel.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "nn/model.h"
#include "run/answer.h"
#include "run/sampler.h"
#include "text/tokenizer.h"

namespace statera {

// What generation_config.json and config.json say about generating.
struct GenerationDefaults {
  SamplingOptions sampling;
  std::vector<int64_t> eos;  // ids that end an answer
};
// generation: generation_config.json (null: none). EOS ids (one or a list) come from there, else from config (or its text_config).
GenerationDefaults read_generation_defaults(const Json& generation, const Json& config);

struct SchedulerOptions {
  int64_t max_running = 16;       // sequences that advance together
  int64_t prefill_tokens = 2048;  // prompt tokens read in one pass (one longer prompt goes alone)
  int64_t max_kv_tokens = 0;      // prompt and answer tokens of all running sequences; 0: no limit
  int64_t max_context = 0;        // tokens of one sequence; 0: the model's own limit
  std::string kv_cache = "auto";  // what keys and values are kept in: nn/kv_cache.h
  template <class V>
  void fields(V& v) {
    v("max_running", max_running, "sequences that advance together");
    v("prefill_tokens", prefill_tokens, "prompt tokens read in one pass");
    v("max_kv_tokens", max_kv_tokens, "tokens in the caches of all running sequences; 0: no limit");
    v("max_context", max_context, "tokens of one sequence; 0: the model's limit");
    v("kv_cache", kv_cache, "what keys and values are kept in: auto (as activations are), fp16 or int8");
  }
};

struct GenerateRequest {
  ModelInputs inputs;  // one sequence; position_ids by the model's rule when undefined
  int64_t max_new_tokens = 256, min_new_tokens = 0;
  SamplingOptions sampling;  // over the scheduler's defaults
  std::vector<std::pair<int64_t, float>> logit_bias;
  std::vector<std::string> stop;  // needs a tokenizer
  bool ignore_eos = false;
  int64_t logprobs = -1;                                 // alternatives to report per token; -1: none at all
  const std::atomic<bool>* cancel = nullptr;             // looked at between passes and between blocks of a prompt pass
  std::function<void(const TokenEvent&)> on_token;       // called by step()
  std::function<void(int64_t request, Answer)> on_done;  // called by step(), once
  // Chooses the token instead of the sampler: (logits [V], number of the token).
  std::function<int64_t(std::span<float>, int64_t)> choose;
};

struct SchedulerStats {
  int64_t prefill_tokens = 0, decode_tokens = 0, passes = 0;
  double prefill_seconds = 0, decode_seconds = 0;
};

class Scheduler {
 public:
  // The model must outlive the scheduler. Without a tokenizer answers have ids only. Error(usage) for an unknown kv_cache.
  Scheduler(const Model& model, std::optional<Tokenizer> tokenizer, GenerationDefaults defaults, SchedulerOptions options = {});
  ~Scheduler();

  // Queues a request and returns its number. Error(usage) for an empty prompt, one as long as the context, or bad options;
  // Error(mismatch) for ids outside the vocabulary.
  int64_t submit(GenerateRequest request);
  void cancel(int64_t request);
  // One pass. False when nothing is waiting or running. An Error of a pass fails the requests in it, not the scheduler.
  bool step();
  // Steps until everything is done.
  void run();
  // Submits one request and runs until all is done. A failed request throws its Error.
  Answer generate(GenerateRequest request);

  SchedulerStats stats() const;
  int64_t kv_bytes() const;  // of the running sequences' caches, as allocated
  int64_t context() const;   // tokens a sequence may have
  const GenerationDefaults& defaults() const;

 private:
  struct State;
  std::unique_ptr<State> s_;
};

}  // namespace statera
