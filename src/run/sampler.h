// sampler: from one row of logits to a token id: pure functions, no tensors, no state but the tokens seen so far.
// Order as in transformers and vLLM: bias, penalties, temperature, top-k, top-p, min-p, draw. Draw i of a request depends on its seed
// and i only, never on what else runs beside it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/json.h"

namespace statera {

// What a request or generation_config.json says; what is absent leaves the word to the next in line.
struct SamplingOptions {
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int64_t> top_k, seed;
  template <class V>
  void fields(V& v) {
    v("temperature", temperature, "divides the logits before drawing; 0: always the most probable token");
    v("top_k", top_k, "draw from the k most probable tokens; 0: from all");
    v("top_p", top_p, "draw from the most probable tokens that together reach this probability");
    v("min_p", min_p, "draw from tokens at least this fraction as probable as the first");
    v("repetition_penalty", repetition_penalty, "divides (negative ones: multiplies) logits of tokens in prompt and answer; 1: none");
    v("presence_penalty", presence_penalty, "subtracted from logits of tokens in the answer");
    v("frequency_penalty", frequency_penalty, "subtracted once per occurrence in the answer");
    v("seed", seed, "seed of the draws; a fresh one when not given");
  }
};

// What a generation uses, complete. The defaults are greedy.
struct Sampling {
  double temperature = 0, top_p = 1, min_p = 0, repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int64_t top_k = 0;  // <= 0: off
  uint64_t seed = 0;
  std::vector<std::pair<int64_t, float>> logit_bias;  // (token, added to its logit)
  bool greedy() const { return temperature == 0; }
};

// `asked` over `defaults` over greedy; without a seed a fresh random one. Values out of range are Error(usage).
Sampling resolve_sampling(const SamplingOptions& asked, const SamplingOptions& defaults);
// Sampling members of a generation_config.json. do_sample false (or absent): temperature 0. Members it does not name stay absent
// (as in vLLM; differs: transformers fills in top_k 50).
SamplingOptions sampling_of_generation_config(const Json& config);

// The tokens of one request, as the penalties see them.
class TokenHistory {
 public:
  explicit TokenHistory(std::span<const int64_t> prompt = {}) : seen_(prompt.begin(), prompt.end()) {}
  void add(int64_t token) { seen_.insert(token), ++answer_[token]; }
  const std::set<int64_t>& seen() const { return seen_; }               // in prompt or answer
  const std::map<int64_t, int64_t>& answer() const { return answer_; }  // token -> occurrences

 private:
  std::set<int64_t> seen_;
  std::map<int64_t, int64_t> answer_;
};

struct Candidate {
  int64_t token;
  double probability;
};

// Index of the largest logit, the lowest one of equals. NaN or +inf among the logits, or none finite: Error(unsupported).
int64_t argmax(std::span<const float> logits);
// Adds the bias and applies the three penalties in place. Ids outside the row are ignored.
void apply_penalties(std::span<float> logits, const Sampling& sampling, const TokenHistory& history);
// Tokens that survive temperature (> 0), top-k (ties of the k-th stay), top-p (a token stays when those before it sum to less than
// top_p; equals go by index) and min-p, in order of index, with probabilities that sum to 1.
std::vector<Candidate> candidates(std::span<const float> logits, const Sampling& sampling);
// The candidate at which the running sum passes u in [0, 1).
int64_t pick(std::span<const Candidate> candidates, double u);
// All of it: token number `step` of the request. The logits are overwritten.
int64_t sample(std::span<float> logits, const Sampling& sampling, const TokenHistory& history, uint64_t step);

// log softmax of the `count` most probable tokens, most probable first, and of `token` (natural logarithms).
struct Logprobs {
  double token = 0;
  std::vector<std::pair<int64_t, double>> top;
};
Logprobs logprobs_of(std::span<const float> logits, int64_t token, int64_t count);

}  // namespace statera
