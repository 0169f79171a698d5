// See sampler.h. Sums run in double over an order that depends on the logits only.
#include "run/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>

#include "base/error.h"
#include "base/rng.h"

namespace statera {
namespace {

void within(bool ok, const char* name, const char* range) {
  if (!ok) throw Error(ErrorKind::usage, std::string(name) + ": must be " + range);
}

double merged(const std::optional<double>& asked, const std::optional<double>& otherwise, double fallback) {
  return asked ? *asked : otherwise.value_or(fallback);
}

// Smaller comes first: larger logit, then lower index.
struct MoreProbable {
  std::span<const float> logits;
  bool operator()(int64_t a, int64_t b) const {
    float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  }
};

// Sorts at least `count` leading entries of `order`.
void sort_leading(std::vector<int64_t>& order, size_t count, const MoreProbable& before) {
  auto middle = order.begin() + static_cast<std::ptrdiff_t>(std::min(count, order.size()));
  if (middle != order.end()) std::nth_element(order.begin(), middle, order.end(), before);
  std::sort(order.begin(), middle, before);
}

// Keeps the k largest and what equals the k-th.
void keep_top_k(std::vector<int64_t>& order, size_t k, std::span<const float> logits) {
  if (k >= order.size()) return;
  std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k - 1), order.end(), MoreProbable{logits});
  float least = logits[static_cast<size_t>(order[k - 1])];
  std::erase_if(order, [&](int64_t i) { return logits[static_cast<size_t>(i)] < least; });
}

// Keeps the tokens before which less than p of the mass lies. weight: unnormalised probabilities by token.
void keep_top_p(std::vector<int64_t>& order, double p, std::span<const float> logits, const std::vector<double>& weight) {
  double total = 0;
  for (int64_t i : order) total += weight[static_cast<size_t>(i)];
  for (size_t sorted = 64;; sorted *= 8) {  // the nucleus is small as a rule: sort no more than needed
    sort_leading(order, sorted, MoreProbable{logits});
    double before = 0;
    for (size_t n = 0; n < std::min(sorted, order.size()); ++n) {
      if (n > 0 && before >= p * total) {
        order.resize(n);
        return;
      }
      before += weight[static_cast<size_t>(order[n])];
    }
    if (sorted >= order.size()) return;
  }
}

}  // namespace

Sampling resolve_sampling(const SamplingOptions& asked, const SamplingOptions& defaults) {
  Sampling s;
  s.temperature = merged(asked.temperature, defaults.temperature, 0);
  s.top_p = merged(asked.top_p, defaults.top_p, 1);
  s.min_p = merged(asked.min_p, defaults.min_p, 0);
  s.repetition_penalty = merged(asked.repetition_penalty, defaults.repetition_penalty, 1);
  s.presence_penalty = merged(asked.presence_penalty, defaults.presence_penalty, 0);
  s.frequency_penalty = merged(asked.frequency_penalty, defaults.frequency_penalty, 0);
  s.top_k = asked.top_k ? *asked.top_k : defaults.top_k.value_or(0);
  auto seed = asked.seed ? asked.seed : defaults.seed;
  std::random_device fresh;
  s.seed = seed ? static_cast<uint64_t>(*seed) : fresh() & 0x7FFFFFFFu;
  within(std::isfinite(s.temperature) && s.temperature >= 0, "temperature", "0 or more");
  within(s.top_p > 0 && s.top_p <= 1, "top_p", "above 0 and at most 1");
  within(s.min_p >= 0 && s.min_p <= 1, "min_p", "between 0 and 1");
  within(std::isfinite(s.repetition_penalty) && s.repetition_penalty > 0, "repetition_penalty", "above 0");
  within(std::isfinite(s.presence_penalty) && std::isfinite(s.frequency_penalty), "presence_penalty, frequency_penalty", "finite");
  within(s.top_k >= -1, "top_k", "-1 or more");
  return s;
}

SamplingOptions sampling_of_generation_config(const Json& config) {
  SamplingOptions s;
  auto number = [&](const char* name, std::optional<double>& out) {
    if (const Json* j = config.get(name)) out = j->as_double(std::string("generation_config.json: ") + name);
  };
  number("temperature", s.temperature);
  number("top_p", s.top_p);
  number("min_p", s.min_p);
  number("repetition_penalty", s.repetition_penalty);
  if (const Json* k = config.get("top_k")) s.top_k = k->as_int("generation_config.json: top_k");
  if (!config.get_bool("do_sample", false)) {
    s.temperature = 0;
  } else if (!s.temperature) {
    s.temperature = 1;
  }
  return s;
}

// By blocks, of which only one is looked at again: as integers, logits are compared several at a time, and NaN lie beyond the infinities.
int64_t argmax(std::span<const float> logits) {
  constexpr size_t kBlock = 256;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const auto turned = [](int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); };  // bits in the order of their floats, and back
  const int32_t least = turned(std::bit_cast<int32_t>(-kInf)), most = turned(std::bit_cast<int32_t>(kInf));
  float highest = -kInf;
  size_t best = logits.size();  // where the block of the highest begins
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    int32_t high = least, low = most;
    for (float x : logits.subspan(begin, std::min(kBlock, logits.size() - begin))) {
      const int32_t k = turned(std::bit_cast<int32_t>(x));
      high = std::max(high, k);
      low = std::min(low, k);
    }
    if (high >= most || low < least) {
      while (logits[begin] < kInf) ++begin;
      throw Error(ErrorKind::unsupported, "the logits are not finite (token " + std::to_string(begin) + ")");
    }
    const float value = std::bit_cast<float>(turned(high));
    if (value > highest) highest = value, best = begin;
  }
  if (best == logits.size()) throw Error(ErrorKind::unsupported, "the logits are not finite (every token is excluded)");
  while (logits[best] != highest) ++best;
  return static_cast<int64_t>(best);
}

void apply_penalties(std::span<float> logits, const Sampling& s, const TokenHistory& history) {
  auto inside = [&](int64_t token) { return token >= 0 && token < static_cast<int64_t>(logits.size()); };
  for (auto [token, bias] : s.logit_bias) {
    if (inside(token)) logits[static_cast<size_t>(token)] += bias;
  }
  if (s.repetition_penalty != 1) {
    auto penalty = static_cast<float>(s.repetition_penalty);
    for (int64_t token : history.seen()) {
      if (!inside(token)) continue;
      float& x = logits[static_cast<size_t>(token)];
      x = x < 0 ? x * penalty : x / penalty;
    }
  }
  if (s.presence_penalty == 0 && s.frequency_penalty == 0) return;
  for (auto [token, count] : history.answer()) {
    if (inside(token)) {
      logits[static_cast<size_t>(token)] -= static_cast<float>(s.presence_penalty + s.frequency_penalty * static_cast<double>(count));
    }
  }
}

std::vector<Candidate> candidates(std::span<const float> logits, const Sampling& s) {
  check(s.temperature > 0, "candidates: temperature");
  double highest = logits[static_cast<size_t>(argmax(logits))];
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  if (s.top_k > 0) keep_top_k(order, static_cast<size_t>(s.top_k), logits);
  std::vector<double> weight(logits.size());
  for (int64_t i : order) weight[static_cast<size_t>(i)] = std::exp((logits[static_cast<size_t>(i)] - highest) / s.temperature);
  if (s.top_p < 1) keep_top_p(order, s.top_p, logits, weight);
  // The most probable token has weight 1.
  std::erase_if(order, [&](int64_t i) { return weight[static_cast<size_t>(i)] < s.min_p || weight[static_cast<size_t>(i)] == 0; });
  std::sort(order.begin(), order.end());
  double total = 0;
  for (int64_t i : order) total += weight[static_cast<size_t>(i)];
  std::vector<Candidate> out;
  for (int64_t i : order) out.push_back({i, weight[static_cast<size_t>(i)] / total});
  return out;
}

int64_t pick(std::span<const Candidate> candidates, double u) {
  check(!candidates.empty(), "pick: no candidates");
  double sum = 0;
  for (const Candidate& c : candidates) {
    sum += c.probability;
    if (u < sum) return c.token;
  }
  return candidates.back().token;  // the sum may end a rounding below 1
}

int64_t sample(std::span<float> logits, const Sampling& sampling, const TokenHistory& history, uint64_t step) {
  apply_penalties(logits, sampling, history);
  if (sampling.greedy()) return argmax(logits);
  return pick(candidates(logits, sampling), Rng(sampling.seed).uniform_at(step));
}

Logprobs logprobs_of(std::span<const float> logits, int64_t token, int64_t count) {
  double highest = logits[static_cast<size_t>(argmax(logits))], sum = 0;
  for (float x : logits) sum += std::exp(x - highest);
  double normaliser = highest + std::log(sum);
  Logprobs out;
  out.token = logits[static_cast<size_t>(token)] - normaliser;
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  count = std::clamp<int64_t>(count, 0, static_cast<int64_t>(order.size()));
  if (count > 0) sort_leading(order, static_cast<size_t>(count), MoreProbable{logits});
  for (int64_t i = 0; i < count; ++i)
    out.top.emplace_back(order[static_cast<size_t>(i)], logits[static_cast<size_t>(order[static_cast<size_t>(i)])] - normaliser);
  return out;
}

}  // namespace statera
