// Hand-computed cases of every step from logits to a token.
#include "run/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/fields.h"
#include "base/rng.h"

namespace statera {
namespace {

// Logits whose softmax is exactly these probabilities.
std::vector<float> logs(std::vector<double> p) {
  std::vector<float> out;
  for (double x : p) out.push_back(static_cast<float>(std::log(x)));
  return out;
}

Sampling hot() {
  Sampling s;
  s.temperature = 1;
  return s;
}

std::vector<int64_t> tokens(const std::vector<Candidate>& c) {
  std::vector<int64_t> out;
  for (auto& x : c) out.push_back(x.token);
  return out;
}

using Ids = std::vector<int64_t>;

TEST(Sampler, GreedyTakesTheLargestAndTheLowestOfEquals) {
  std::vector<float> logits{1, 3, 2, 3};
  EXPECT_EQ(sample(logits, Sampling{}, TokenHistory{}, 0), 1);
}

TEST(Sampler, NonFiniteLogitsAreAnError) {
  float inf = std::numeric_limits<float>::infinity();
  EXPECT_THROW(argmax(std::vector<float>{1, std::nanf("")}), Error);
  EXPECT_THROW(argmax(std::vector<float>{1, inf}), Error);
  EXPECT_THROW(argmax(std::vector<float>{-inf, -inf}), Error);
  EXPECT_EQ(argmax(std::vector<float>{-inf, -5}), 1);
}

TEST(Sampler, ArgmaxOfLongRowsIsTheFirstOfTheLargestWhereverItStands) {
  for (size_t size : {255, 256, 257, 1000}) {
    const Rng rng(7, size);
    std::vector<float> logits(size);
    for (size_t i = 0; i < size; ++i) logits[i] = static_cast<float>(static_cast<int64_t>(rng.at(i) % 61) - 70);  // ties, all negative
    EXPECT_EQ(argmax(logits), std::max_element(logits.begin(), logits.end()) - logits.begin()) << size;
    for (size_t at : {size_t{0}, size - 2, size / 2}) {
      std::vector<float> one = logits;
      one[at] = -0.0f, one[at + 1] = 0.0f;
      EXPECT_EQ(argmax(one), static_cast<int64_t>(at)) << "of equals, whatever their sign";
      for (float bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity()}) {
        one[at] = bad;
        try {
          argmax(one);
          FAIL() << bad << " at " << at;
        } catch (const Error& e) {
          EXPECT_NE(std::string(e.what()).find("(token " + std::to_string(at) + ")"), std::string::npos) << e.what();
        }
      }
    }
  }
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogitsOfPromptAndAnswer) {
  Ids prompt{0, 1, 1, 99};
  TokenHistory history(prompt);
  history.add(3);
  Sampling s;
  s.repetition_penalty = 2;
  std::vector<float> logits{4, -4, 4, -1, 0};
  apply_penalties(logits, s, history);
  EXPECT_EQ(logits, (std::vector<float>{2, -8, 4, -2, 0}));
}

TEST(Sampler, PresenceAndFrequencyLookAtTheAnswerOnly) {
  TokenHistory history(Ids{0});
  history.add(1);
  history.add(2);
  history.add(2);
  Sampling s;
  s.presence_penalty = 0.5;
  s.frequency_penalty = 0.25;
  std::vector<float> logits{1, 1, 1, 1};
  apply_penalties(logits, s, history);
  EXPECT_EQ(logits, (std::vector<float>{1, 0.25f, 0, 1}));
}

TEST(Sampler, BiasComesBeforeThePenalties) {
  Sampling s;
  s.repetition_penalty = 2;
  s.logit_bias = {{0, 3.f}, {7, 1.f}};
  std::vector<float> logits{1, 1};
  apply_penalties(logits, s, TokenHistory(Ids{0}));
  EXPECT_EQ(logits, (std::vector<float>{2, 1}));
}

TEST(Sampler, TemperatureSharpensTheDistribution) {
  Sampling s = hot();
  s.temperature = 0.5;  // squares the probabilities
  auto c = candidates(logs({0.5, 0.25, 0.25}), s);
  EXPECT_NEAR(c[0].probability, 0.25 / 0.375, 1e-6);
  EXPECT_NEAR(c[1].probability, 0.0625 / 0.375, 1e-6);
}

TEST(Sampler, TopKKeepsTiesOfTheLast) {
  Sampling s = hot();
  s.top_k = 2;
  EXPECT_EQ(tokens(candidates(std::vector<float>{1, 5, 3, 3, 2}, s)), (Ids{1, 2, 3}));
  EXPECT_EQ(tokens(candidates(std::vector<float>{1, 5, 4, 3, 2}, s)), (Ids{1, 2}));
  s.top_k = 9;
  EXPECT_EQ(candidates(std::vector<float>{1, 5}, s).size(), 2u);
}

TEST(Sampler, TopPKeepsTheTokenThatCrossesTheMassAndNoMore) {
  Sampling s = hot();
  auto logits = logs({0.1, 0.4, 0.3, 0.2});
  s.top_p = 0.69;
  EXPECT_EQ(tokens(candidates(logits, s)), (Ids{1, 2}));
  s.top_p = 0.71;
  EXPECT_EQ(tokens(candidates(logits, s)), (Ids{1, 2, 3}));
  s.top_p = 1e-9;
  auto c = candidates(logits, s);
  EXPECT_EQ(tokens(c), (Ids{1}));
  EXPECT_EQ(c[0].probability, 1);
}

TEST(Sampler, TopPReachesBeyondTheFirstSortedChunk) {
  std::vector<float> logits(1000, 0);
  Sampling s = hot();
  s.top_p = 0.5;
  auto kept = tokens(candidates(logits, s));
  ASSERT_EQ(kept.size(), 500u);  // equals go by index
  EXPECT_EQ(kept.back(), 499);
}

TEST(Sampler, TopPCountsTheMassThatTopKLeft) {
  Sampling s = hot();
  s.top_k = 2;
  s.top_p = 0.56;  // 0.4 / 0.7 = 0.571 alone is enough after top-k
  EXPECT_EQ(tokens(candidates(logs({0.1, 0.4, 0.3, 0.2}), s)), (Ids{1}));
}

TEST(Sampler, MinPIsRelativeToTheMostProbable) {
  Sampling s = hot();
  s.min_p = 0.6;
  EXPECT_EQ(tokens(candidates(logs({0.1, 0.4, 0.3, 0.2}), s)), (Ids{1, 2}));
}

TEST(Sampler, PickWalksTheRunningSum) {
  std::vector<Candidate> c{{3, 0.25}, {5, 0.5}, {9, 0.25}};
  EXPECT_EQ(pick(c, 0), 3);
  EXPECT_EQ(pick(c, 0.25), 5);
  EXPECT_EQ(pick(c, 0.7499), 5);
  EXPECT_EQ(pick(c, 0.9999999), 9);
}

TEST(Sampler, DrawsFollowTheSeedAndTheStepOnly) {
  Sampling s = hot();
  s.seed = 17;
  auto draw = [&](uint64_t seed, uint64_t step) {
    auto logits = logs(std::vector<double>(100, 0.01));
    s.seed = seed;
    return sample(logits, s, TokenHistory{}, step);
  };
  EXPECT_EQ(draw(17, 3), draw(17, 3));
  int64_t differing = 0;
  for (uint64_t step = 0; step < 20; ++step) differing += draw(17, step) != draw(18, step);
  EXPECT_GT(differing, 15);
}

TEST(Sampler, FrequenciesOfDrawsMatchTheProbabilities) {
  Sampling s = hot();
  auto probabilities = std::vector<double>{0.5, 0.3, 0.2};
  std::vector<double> counts(3);
  auto kept = candidates(logs(probabilities), s);
  Rng rng(5);
  for (int i = 0; i < 20000; ++i) counts[static_cast<size_t>(pick(kept, rng.uniform()))] += 1.0 / 20000;
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(counts[i], probabilities[i], 0.012);
}

TEST(Sampler, AskedValuesGoOverThoseOfTheCheckpoint) {
  auto defaults = sampling_of_generation_config(
      Json::parse(R"({"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05})", "test"));
  SamplingOptions asked;
  asked.top_k = 5;
  asked.seed = 3;
  Sampling s = resolve_sampling(asked, defaults);
  EXPECT_EQ(s.temperature, 0.7);
  EXPECT_EQ(s.top_p, 0.8);
  EXPECT_EQ(s.repetition_penalty, 1.05);
  EXPECT_EQ(s.top_k, 5);
  EXPECT_EQ(s.seed, 3u);
  EXPECT_TRUE(resolve_sampling({}, sampling_of_generation_config(Json::parse(R"({"temperature": 0.7})", "test"))).greedy());
  EXPECT_EQ(sampling_of_generation_config(Json::parse(R"({"do_sample": true})", "test")).temperature, 1);
}

TEST(Sampler, ValuesOutOfRangeAreUsageErrors) {
  for (const char* text : {R"({"temperature": -1})", R"({"top_p": 0})", R"({"top_p": 1.5})", R"({"min_p": -0.1})",
                           R"({"repetition_penalty": 0})", R"({"top_k": -2})"}) {
    SamplingOptions asked;
    fields_from_json(Json::parse(text, "test"), asked, "test");
    EXPECT_THROW(resolve_sampling(asked, {}), Error) << text;
  }
}

TEST(Sampler, LogprobsAreTheLogOfTheSoftmax) {
  auto l = logprobs_of(logs({0.1, 0.4, 0.3, 0.2}), 3, 2);
  EXPECT_NEAR(l.token, std::log(0.2), 1e-6);
  ASSERT_EQ(l.top.size(), 2u);
  EXPECT_EQ(l.top[0].first, 1);
  EXPECT_NEAR(l.top[1].second, std::log(0.3), 1e-6);
}

}  // namespace
}  // namespace statera
