// answer: what generation gives back, token by token and as a whole. No tensors: users of the library see these types.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "run/sampler.h"

namespace statera {

enum class FinishReason { stop, length, cancelled, failed };
std::string_view to_string(FinishReason reason);

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
  double prefill_seconds = 0;  // of the pass that read the prompt (shared with the prompts beside it)
  double decode_seconds = 0;   // of the passes after it
};

struct TokenEvent {
  int64_t request = 0;
  std::optional<int64_t> token;  // absent when the event only closes the answer
  std::string text;              // safe to show; often empty
  std::optional<Logprobs> logprobs;
  std::optional<FinishReason> finish;
};

struct Answer {
  std::vector<int64_t> ids;  // a closing EOS included
  std::string text;          // without EOS and stop string
  FinishReason finish = FinishReason::stop;
  std::string stop;            // the stop string found
  std::optional<Error> error;  // of FinishReason::failed
  Usage usage;
  uint64_t seed = 0;
  std::vector<Logprobs> logprobs;  // per token, when asked for
};

}  // namespace statera
