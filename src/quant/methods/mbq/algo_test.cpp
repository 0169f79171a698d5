// MBQ: equal sensitivities give AWQ, the published losses on worked tensors, ratios from sensitivities, and what each option must not
// touch.
#include "quant/methods/mbq/algo.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/methods/awq/algo.h"
#include "quant/search/test_tensors.h"

namespace statera {
namespace {

class Mbq : public testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

const QSpec kSpec{3, 32, false}, kChannel{4, -1, true};
constexpr int64_t kRows = 120, kWidth = 96;

// Vision rows first; the answer is what follows, or the last 40 rows only.
struct Case {
  explicit Case(uint64_t seed, bool all = true)
      : x(activations(kRows, kWidth, seed)), vision(at::arange(kRows) < 60), answer(at::arange(kRows) >= (all ? 60 : 80)) {
    readers = {weight_matrix(40, kWidth, seed + 1), weight_matrix(24, kWidth, seed + 2)};
    counts = {kRows, 60, all ? 60 : 40};
  }
  ScaleChoice search(const MbqLoss& loss, double rho, const QSpec& spec, const std::optional<ActQuant>& act = {}) const {
    return mbq_search(readers, x, x, mbq_row_weight(vision, answer, counts, loss, rho), spec, act, loss.norm);
  }
  at::Tensor x, vision, answer;
  std::vector<at::Tensor> readers;
  TokenCounts counts;
};

TEST_F(Mbq, WithEqualSensitivitiesEqualsAwqUnderTheSameLoss) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const Case c(seed);
    const ScaleChoice awq = awq_search(c.readers, {.gram_KK = gram_of(c.x)}, c.x.abs().mean(0), kSpec);
    const ScaleChoice mbq = c.search({ErrorNorm::mse, true, false}, 1, kSpec);
    EXPECT_EQ(mbq.ratio, awq.ratio);
    EXPECT_TRUE(at::equal(mbq.scale, awq.scale));
    for (size_t k = 0; k < 20; ++k) EXPECT_NEAR(mbq.losses[k] * kRows * 64 / awq.losses[k], 1, 1e-4);
  }
}

TEST_F(Mbq, EqualSensitivitiesEqualReweightingSwitchedOffBitForBit) {
  for (ErrorNorm norm : {ErrorNorm::mae, ErrorNorm::mse}) {
    const Case c(3);
    for (const std::optional<ActQuant>& act : {std::optional<ActQuant>{}, std::optional(ActQuant{8})}) {
      const QSpec& spec = act ? kChannel : kSpec;
      EXPECT_EQ(c.search({norm, true, false}, 1, spec, act).losses, c.search({norm, false, false}, 1, spec, act).losses);
    }
  }
}

TEST_F(Mbq, WeightedSquaredErrorIsAlsoTheLossOfAWeightedGram) {
  const Case c(5, false);
  const at::Tensor weight = mbq_row_weight(c.vision, c.answer, c.counts, MbqLoss::published_mse(), 0.2);
  const ScaleChoice rows = mbq_search(c.readers, c.x, c.x, weight, kSpec, {}, ErrorNorm::mse);
  const ScaleChoice gram = awq_search(c.readers, {.gram_KK = gram_of(c.x, weight)}, c.x.abs().mean(0), kSpec);
  EXPECT_EQ(rows.ratio, gram.ratio);
  for (size_t k = 0; k < 20; ++k) EXPECT_NEAR(rows.losses[k] * 64 / gram.losses[k], 1, 1e-4);
}

TEST_F(Mbq, PublishedLossesOnAWorkedTensor) {
  // Two sequences of three tokens and two channels: vision, answer, neither; vision, vision, answer.
  const at::Tensor D = at::tensor({1.f, -3.f, 2.f, 2.f, 9.f, 9.f, -1.f, 1.f, 0.f, 4.f, 3.f, -1.f}).reshape({6, 2});
  const at::Tensor vision = at::tensor({1, 0, 0, 1, 1, 0}).to(at::kBool), answer = at::tensor({0, 1, 0, 0, 0, 1}).to(at::kBool);
  const TokenCounts counts{6, 3, 2};
  auto loss = [&](const MbqLoss& l, double rho) {
    return weighted_error(D, at::zeros({6, 2}), mbq_row_weight(vision, answer, counts, l, rho), l.norm);
  };
  // Sums: answer |D| 4 + 4, vision 4 + 2 + 4; answer D^2 8 + 10, vision 10 + 2 + 16; all |D| 36, D^2 208.
  EXPECT_NEAR(loss(MbqLoss::published_mae(), 0.5), (8 + 0.5 * 10) / 10.0, 1e-6);
  EXPECT_NEAR(loss(MbqLoss::published_mse(), 0.5), 18 / 4.0 + 0.5 * 28 / 6.0, 1e-6);
  EXPECT_NEAR(loss({ErrorNorm::mse, true, false}, 0.5), (18 + 0.5 * 28) / 10.0, 1e-6);
  EXPECT_NEAR(loss({ErrorNorm::mae, true, true}, 0.5), 8 / 4.0 + 0.5 * 10 / 6.0, 1e-6);
  EXPECT_NEAR(loss({ErrorNorm::mae, false, false}, 0.5), 36 / 12.0, 1e-6);
  EXPECT_NEAR(loss({ErrorNorm::mse, false, true}, 0.5), 208 / 12.0, 1e-5);
}

TEST_F(Mbq, DuplicatedVisionRowsWeighMoreUnlessEachModalityHasItsOwnMean) {
  const at::Tensor D = normal_matrix(10, 4, 1), vision = at::arange(10) < 6, answer = at::arange(10) >= 6;
  const at::Tensor D2 = at::cat({D.slice(0, 0, 6), D}), vision2 = at::arange(16) < 12, answer2 = at::arange(16) >= 12;
  auto loss = [](const at::Tensor& d, const at::Tensor& v, const at::Tensor& a, const TokenCounts& n, bool own) {
    return weighted_error(d, at::zeros(d.sizes()), mbq_row_weight(v, a, n, {ErrorNorm::mse, true, own}, 0.7), ErrorNorm::mse);
  };
  EXPECT_NEAR(loss(D, vision, answer, {10, 6, 4}, true), loss(D2, vision2, answer2, {16, 12, 4}, true), 1e-6);
  EXPECT_GT(std::abs(loss(D, vision, answer, {10, 6, 4}, false) - loss(D2, vision2, answer2, {16, 12, 4}, false)), 1e-3);
}

TEST_F(Mbq, LossIsASumOverAnySplitOfTheRows) {
  const Case c(8, false);
  const at::Tensor w = mbq_row_weight(c.vision, c.answer, c.counts, MbqLoss::published_mse(), 0.3), zero = at::zeros(c.x.sizes());
  double parts = 0;
  for (int64_t t = 0; t < kRows; t += 50) {
    const int64_t end = std::min(t + 50, kRows);
    const at::Tensor part = mbq_row_weight(c.vision.slice(0, t, end), c.answer.slice(0, t, end), c.counts, MbqLoss::published_mse(), 0.3);
    EXPECT_TRUE(at::equal(part, w.slice(0, t, end)));
    parts += weighted_error(c.x.slice(0, t, end), zero.slice(0, t, end), part, ErrorNorm::mse);
  }
  EXPECT_NEAR(parts / weighted_error(c.x, zero, w, ErrorNorm::mse), 1, 1e-9);
}

TEST_F(Mbq, RhoOfZeroLooksAtAnswersOnlyAndRowsOfNeitherKindNeverCount) {
  const Case c(2, false);
  const at::Tensor weight = mbq_row_weight(c.vision, c.answer, c.counts, MbqLoss::published_mae(), 0);
  at::Tensor y = at::matmul(c.x, c.readers[0].t()), hat = y + 0.1, wild = hat.clone();
  wild.slice(0, 0, 80).mul_(100);
  EXPECT_EQ(weighted_error(y, hat, weight, ErrorNorm::mae), weighted_error(y, wild, weight, ErrorNorm::mae));
  const at::Tensor balanced = mbq_row_weight(c.vision, c.answer, c.counts, MbqLoss::published_mae(), 0.5);
  EXPECT_EQ(balanced.slice(0, 60, 80).abs().max().item<double>(), 0);
  EXPECT_LT(weighted_error(y, hat, balanced, ErrorNorm::mae), weighted_error(y, wild, balanced, ErrorNorm::mae));
}

TEST_F(Mbq, MissingModalitiesGiveFiniteLosses) {
  const at::Tensor none = at::zeros({5}, at::kBool), all = at::ones({5}, at::kBool);
  for (const MbqLoss& loss : {MbqLoss::published_mae(), MbqLoss::published_mse()}) {
    EXPECT_NEAR(mbq_row_weight(none, all, {5, 0, 5}, loss, 0.5).sum().item<double>(), 1, 1e-6);
    EXPECT_NEAR(mbq_row_weight(all, none, {5, 5, 0}, loss, 0.5).sum().item<double>(), 0.5, 1e-6);
    EXPECT_NEAR(mbq_row_weight(none, none, {5, 0, 0}, loss, 0.5).sum().item<double>(), 1, 1e-6);
  }
}

TEST_F(Mbq, BalancedChoiceIsBestUnderItsOwnLoss) {
  double sum = 0;
  int different = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Case c(seed, false);
    c.x.slice(0, 0, 60).copy_(activations(60, kWidth, seed + 5) * 3);  // vision rows: outliers elsewhere and larger
    const at::Tensor weight = mbq_row_weight(c.vision, c.answer, c.counts, MbqLoss::published_mae(), 0.05);
    const ScaleChoice mbq = mbq_search(c.readers, c.x, c.x, weight, kSpec, {}, ErrorNorm::mae);
    const ScaleChoice awq = awq_search(c.readers, {.gram_KK = gram_of(c.x)}, c.x.abs().mean(0), kSpec);
    const double awqs = mbq.losses[static_cast<size_t>(std::lround(awq.ratio * 20))];
    EXPECT_LE(mbq.loss, awqs);
    EXPECT_LE(mbq.loss, mbq.losses[0]);
    different += mbq.ratio != awq.ratio;
    sum += mbq.loss / awqs / 12;
  }
  RecordProperty("mean", std::to_string(sum));
  RecordProperty("different", different);
  EXPECT_GT(different, 3);
}

TEST_F(Mbq, WithActivationsTheFirstCandidateIsBothSidesRounded) {
  const at::Tensor x = activations(30, 64, 1), W = weight_matrix(20, 64, 2);
  const MbqTrial trial = mbq_trial(std::vector{W}, at::ones({64}), std::vector{kChannel}, ActQuant{8});
  const at::Tensor expected = at::matmul(fake_quantize(x, ActQuant{8}), rtn(W, kChannel).dequantize().t());
  EXPECT_TRUE(at::equal(trial_output(trial, 0, x), expected));
  const at::Tensor alone = trial_output(trial, 0, x.slice(0, 3, 4)), among = trial_output(trial, 0, at::cat({x.slice(0, 3, 4), x * 50}));
  EXPECT_LT((alone - among.slice(0, 0, 1)).abs().max().item<double>(), 1e-5 * alone.abs().max().item<double>());
}

TEST_F(Mbq, WithActivationsTheSearchBeatsPlainRoundingAndWithoutThemTrialsNeedNoDivisor) {
  const Case c(4);
  const ScaleChoice best = c.search(MbqLoss::published_mae(), 0.5, {8, -1, true}, ActQuant{8});
  EXPECT_GT(best.ratio, 0);
  EXPECT_LT(best.loss, 0.8 * best.losses[0]);
  const at::Tensor s = scale_of_ratio(c.x.abs().mean(0), 0.5);
  const MbqTrial plain = mbq_trial(c.readers, s, std::vector{kSpec, kSpec}, {}), folded = mbq_trial(c.readers, s, std::vector{kSpec, kSpec}, ActQuant{8});
  EXPECT_FALSE(plain.divisor.defined());
  EXPECT_LT((plain.weights[1] * s - folded.weights[1]).abs().max().item<double>(), 1e-6);
}

TEST_F(Mbq, DistortedInputIsJudgedAgainstTheCleanTarget) {
  const Case c(6);
  const at::Tensor weight = mbq_row_weight(c.vision, c.answer, c.counts, MbqLoss::published_mae(), 0.5);
  const at::Tensor bent = c.x + normal_matrix(kRows, kWidth, 9) * 0.5;
  const ScaleChoice clean = mbq_search(c.readers, c.x, c.x, weight, kSpec, {}, ErrorNorm::mae);
  const ScaleChoice distorted = mbq_search(c.readers, c.x, bent, weight, kSpec, {}, ErrorNorm::mae);
  EXPECT_EQ(clean.losses, mbq_search(c.readers, c.x, c.x.clone(), weight, kSpec, {}, ErrorNorm::mae).losses);
  EXPECT_TRUE(at::equal(distorted.scale, scale_of_ratio(bent.abs().mean(0), distorted.ratio)));
  double by_hand = 0;
  const MbqTrial trial = mbq_trial(c.readers, distorted.scale, std::vector{kSpec, kSpec}, {});
  for (size_t i = 0; i < 2; ++i) {
    const at::Tensor y = at::matmul(c.x, c.readers[i].t()), hat = at::matmul(bent, trial.weights[i].t());
    by_hand += static_cast<double>(c.readers[i].size(0)) / 64 * weighted_error(y, hat, weight, ErrorNorm::mae);
  }
  EXPECT_NEAR(distorted.loss / by_hand, 1, 1e-5);
}

TEST_F(Mbq, SensitivityIsAMeanPerSequenceAndAbsentWithoutTokens) {
  const at::Tensor g = at::tensor({1.f, -1.f, 2.f, 4.f, 10.f, 10.f}).reshape({3, 2});
  const at::Tensor first = at::tensor({1, 1, 0}).to(at::kBool), last = at::tensor({0, 0, 1}).to(at::kBool),
                   none = at::zeros({3}, at::kBool);
  const Sensitivity s = modality_sensitivity(g, first, last);
  EXPECT_DOUBLE_EQ(*s.vision, 2);
  EXPECT_DOUBLE_EQ(*s.answer, 10);
  EXPECT_FALSE(modality_sensitivity(g, none, last).vision.has_value());
  EXPECT_FALSE(modality_sensitivity(g, first, none).answer.has_value());
}

TEST_F(Mbq, RatioCountsSequencesAlikeAndLeavesOutThoseWithoutAModality) {
  const std::vector<Sensitivity> two{{1.0, 4.0}, {3.0, 4.0}};
  EXPECT_DOUBLE_EQ(*modality_ratio(two), 0.5);
  const std::vector<Sensitivity> scaled{{1e-9, 4e-9}, {3e-9, 4e-9}};
  EXPECT_NEAR(*modality_ratio(scaled), 0.5, 1e-12);
  // A sequence without pictures or without labels changes nothing.
  const std::vector<Sensitivity> mixed{{1.0, 4.0}, {std::nullopt, 8.0}, {3.0, std::nullopt}};
  EXPECT_DOUBLE_EQ(*modality_ratio(mixed), 1.0 / 4.0);
  EXPECT_FALSE(modality_ratio(std::vector<Sensitivity>{{std::nullopt, 8.0}}).has_value());
  EXPECT_FALSE(modality_ratio(std::vector<Sensitivity>{{1.0, 0.0}}).has_value());
  EXPECT_FALSE(modality_ratio(std::vector<Sensitivity>{}).has_value());
}

TEST_F(Mbq, NoBlockFallsBelowTheMedianAndTheLastBlocksZeroBecomesIt) {
  const std::vector<std::optional<double>> rho{0.4, 0.1, 0.3, 0.0};
  EXPECT_EQ(floor_at_median(rho), (std::vector<double>{0.4, 0.2, 0.3, 0.2}));
  EXPECT_EQ(floor_at_median(rho, false), (std::vector<double>{0.4, 0.1, 0.3, 0.0}));
  const std::vector<std::optional<double>> gap{0.4, std::nullopt, 0.2, 0.1};
  EXPECT_EQ(floor_at_median(gap), (std::vector<double>{0.4, 1, 0.2, 0.2}));
  EXPECT_EQ(floor_at_median(std::vector<std::optional<double>>{std::nullopt}), std::vector<double>{1});
}

}  // namespace
}  // namespace statera
