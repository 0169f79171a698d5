// AWQ's candidates, search and clip: worked numbers, the three ways to evaluate one loss, and never worse than plain rounding.
#include "quant/methods/awq/algo.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/threads.h"
#include "quant/search/grid.h"
#include "quant/search/test_tensors.h"

namespace statera {
namespace {

class Awq : public testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

const QSpec kSpec{3, 32, false};

at::Tensor mean_abs(const at::Tensor& x) { return x.abs().mean(0); }

TEST_F(Awq, ScalesAreNormalisedPowersOfTheMean) {
  const at::Tensor m = at::tensor({0.01f, 0.1f, 1.f, 10.f}), s = scale_of_ratio(m, 0.5);
  const float expected[] = {0.1778279f, 0.5623413f, 1.7782794f, 5.6234133f};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(s[i].item<float>(), expected[i], 1e-5);
  EXPECT_TRUE(at::equal(scale_of_ratio(m, 0), at::ones({4})));
  EXPECT_NEAR(scale_of_ratio(at::tensor({0.f, 1.f}), 0.5)[0].item<double>(), 0.01, 1e-7);  // 1e-4 over sqrt(1e-4 * 1)
  EXPECT_TRUE(at::equal(scale_of_ratio(at::tensor({0.f, 0.f}), 0.5), at::ones({2})));
}

TEST_F(Awq, TriesRatiosFromZeroInSteps) {
  std::vector<double> seen;
  const at::Tensor m = at::tensor({1.f, 4.f});
  const ScaleChoice best = search_scale(m, {}, [&](const at::Tensor& s) {
    seen.push_back(std::log(s[1].item<double>() / s[0].item<double>()) / std::log(4.0));
    return std::abs(seen.back() - 0.34);
  });
  ASSERT_EQ(seen.size(), 20u);
  for (size_t k = 0; k < 20; ++k) EXPECT_NEAR(seen[k], 0.05 * static_cast<double>(k), 1e-6);
  EXPECT_DOUBLE_EQ(best.ratio, 0.35);
  EXPECT_EQ(best.losses.size(), 20u);
}

TEST_F(Awq, TiesGoToTheSmallerRatioAndNanNeverWins) {
  const at::Tensor m = at::tensor({1.f, 4.f});
  int call = 0;
  EXPECT_EQ(search_scale(m, {}, [&](const at::Tensor&) { return call++ < 4 ? std::nan("") : 1.0; }).ratio, 0.2);
  EXPECT_THROW(search_scale(m, {}, [](const at::Tensor&) { return std::nan(""); }), Error);
  EXPECT_THROW(search_scale(m, {.steps = 0}, [](const at::Tensor&) { return 1.0; }), Error);
}

TEST_F(Awq, TiedChannelsShareTheScaleOfTheirMean) {
  ScaleGridOptions tied{.reader_of = {0, 1, 0, 1}, .channels = 2};
  at::Tensor wide;
  const ScaleChoice best = search_scale(at::tensor({1.f, 2.f, 3.f, 6.f}), tied, [&](const at::Tensor& s) {
    wide = s;
    return -s[1].item<double>();
  });
  EXPECT_EQ(best.scale.size(0), 2);
  EXPECT_TRUE(at::equal(best.scale, scale_of_ratio(at::tensor({2.f, 4.f}), 0.95)));
  EXPECT_TRUE(at::equal(wide.slice(0, 0, 2), wide.slice(0, 2, 4)));
}

TEST_F(Awq, RatioZeroIsRoundToNearestAndThereforeTheSearchIsNeverWorse) {
  double worst = 0, sum = 0;
  for (uint64_t seed = 0; seed < 16; ++seed) {
    const at::Tensor W = weight_matrix(48, 128, seed), x = activations(200, 128, seed + 20), gram = gram_of(x);
    EXPECT_TRUE(at::equal(awq_trial(W, scale_of_ratio(mean_abs(x), 0), kSpec), rtn(W, kSpec).dequantize()));
    const ScaleChoice best = awq_search(std::vector{W}, {.gram_KK = gram}, mean_abs(x), kSpec);
    const double plain = gram_loss(rtn(W, kSpec).dequantize() - W, gram);
    EXPECT_NEAR(best.losses[0] / plain, 1, 1e-5);
    EXPECT_LE(best.loss, best.losses[0]);
    worst = std::max(worst, best.loss / plain);
    sum += best.loss / plain / 16;
  }
  RecordProperty("worst", std::to_string(worst));
  RecordProperty("mean", std::to_string(sum));
  EXPECT_LT(worst, 0.8);
}

TEST_F(Awq, TrialsAndClippingRoundOnOwnRangesWhereTheSpecSaysSo) {
  QSpec own = kSpec;
  own.own_range = true;
  const at::Tensor W = weight_matrix(48, 128, 3).abs() + 0.01, gram = gram_of(activations(200, 128, 20));
  const at::Tensor plain = rtn(W, own).dequantize();
  EXPECT_TRUE(at::equal(awq_trial(W, scale_of_ratio(gram.diagonal(), 0), own), plain));
  EXPECT_GT((plain - rtn(W, kSpec).dequantize()).abs().max().item<double>(), 0.01);
  EXPECT_FALSE(at::equal(awq_clip(W, gram, own), awq_clip(W, gram, kSpec)));
}

TEST_F(Awq, GramRowsAndReplayAreOneLoss) {
  const at::Tensor x = activations(90, 96, 1), c = normal_matrix(1, 90, 2)[0].abs();
  const std::vector<at::Tensor> readers{weight_matrix(150, 96, 3), weight_matrix(20, 96, 4)};
  const ScaleChoice gram = awq_search(readers, {.gram_KK = gram_of(x, c)}, mean_abs(x), kSpec);
  const ScaleChoice rows = awq_search(readers, {.rows_TK = x, .row_weight_T = c}, mean_abs(x), kSpec);
  const ScaleChoice replay = awq_search(readers, mean_abs(x), kSpec, [&](const std::vector<at::Tensor>& trials) {
    double sum = 0;
    for (size_t i = 0; i < 2; ++i) {
      const double channels = static_cast<double>(readers[i].size(0));
      sum += channels * weighted_error(at::matmul(x, readers[i].t()), at::matmul(x, trials[i].t()), c, ErrorNorm::mse);
    }
    return sum;
  });
  EXPECT_GT(gram.ratio, 0);
  EXPECT_EQ(gram.ratio, rows.ratio);
  EXPECT_EQ(gram.ratio, replay.ratio);
  for (size_t k = 0; k < 20; ++k) {
    EXPECT_NEAR(rows.losses[k] / gram.losses[k], 1, 1e-4);
    EXPECT_NEAR(replay.losses[k] / gram.losses[k], 1, 1e-4);
  }
}

TEST_F(Awq, RoundingAfterTheFoldGivesTheLossOfTheSearch) {
  // Q(W s)/s on x equals Q(W s) on x/s.
  const at::Tensor x = activations(60, 96, 5), W = weight_matrix(40, 96, 6);
  const ScaleChoice best = awq_search(std::vector{W}, {.rows_TK = x}, mean_abs(x), kSpec);
  const at::Tensor folded = rtn(W * best.scale, kSpec).dequantize();
  const at::Tensor off = at::matmul(x / best.scale, folded.t()) - at::matmul(x, W.t());
  EXPECT_NEAR(off.square().sum().item<double>() / best.loss, 1, 1e-4);
}

TEST_F(Awq, RowWeightsDecideWhichRowsCount) {
  // Two kinds of rows with outliers in different channels: each weighting serves its own kind best.
  const at::Tensor W = weight_matrix(64, 128, 7), a = activations(150, 128, 16), b = activations(150, 128, 23);
  const at::Tensor x = at::cat({a, b}), m = mean_abs(x);
  at::Tensor first = at::zeros({300}), last = at::zeros({300});
  first.slice(0, 0, 150).fill_(1);
  last.slice(0, 150, 300).fill_(1);
  const ScaleChoice ca = awq_search(std::vector{W}, {.rows_TK = x, .row_weight_T = first}, m, kSpec);
  const ScaleChoice only = awq_search(std::vector{W}, {.rows_TK = a}, m, kSpec);
  EXPECT_EQ(ca.ratio, only.ratio);
  for (size_t k = 0; k < 20; ++k) EXPECT_NEAR(ca.losses[k] / only.losses[k], 1, 1e-5);
  const ScaleChoice cb = awq_search(std::vector{W}, {.rows_TK = x, .row_weight_T = last}, m, kSpec);
  EXPECT_GT(std::abs(cb.losses[0] / ca.losses[0] - 1), 1e-3);
}

TEST_F(Awq, ThreadsDoNotChangeTheLosses) {
  const at::Tensor x = activations(90, 96, 1);
  const std::vector<at::Tensor> readers{weight_matrix(700, 96, 3)};
  const int threads = num_threads();
  set_num_threads(1);
  const ScaleChoice one = awq_search(readers, {.gram_KK = gram_of(x)}, mean_abs(x), kSpec);
  set_num_threads(3);
  const ScaleChoice many = awq_search(readers, {.gram_KK = gram_of(x)}, mean_abs(x), kSpec);
  set_num_threads(threads);
  EXPECT_EQ(one.losses, many.losses);
}

TEST_F(Awq, ClipNeverMakesAGroupsErrorLarger) {
  double sum = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const at::Tensor W = weight_matrix(24, 80, seed), gram = gram_of(activations(200, 80, seed + 3));
    const at::Tensor bound = awq_clip(W, gram, kSpec);
    ASSERT_EQ(bound.sizes(), (std::vector<int64_t>{24, 3}));
    const at::Tensor plain = rtn(W, kSpec).dequantize() - W, clipped = rtn(clamp_groups(W, bound, kSpec), kSpec).dequantize() - W;
    double total_plain = 0, total_clipped = 0;
    for (int64_t g = 0; g < 3; ++g) {
      const int64_t begin = g * 32, end = std::min<int64_t>(80, begin + 32);
      const at::Tensor block = gram.slice(0, begin, end).slice(1, begin, end);
      for (int64_t n = 0; n < 24; ++n) {
        const double p = gram_loss(plain.slice(0, n, n + 1).slice(1, begin, end), block);
        const double c = gram_loss(clipped.slice(0, n, n + 1).slice(1, begin, end), block);
        EXPECT_LE(c, p * (1 + 1e-5));
        total_plain += p;
        total_clipped += c;
      }
    }
    sum += total_clipped / total_plain / 8;
  }
  RecordProperty("mean", std::to_string(sum));
  EXPECT_LT(sum, 0.95);
}

TEST_F(Awq, ClipTriesTenFactorsDownToFiftyFivePercent) {
  // One weight far from the others which the input never uses: the deepest factor wins there, and where all weights matter alike the range
  // stays.
  at::Tensor W = at::tensor({0.5f, -0.25f, 0.125f, 4.f}).reshape({1, 4});
  at::Tensor gram = at::zeros({4, 4});
  gram.diagonal().slice(0, 0, 3).fill_(1);
  const QSpec spec{4, -1, true};
  EXPECT_NEAR(awq_clip(W, gram, spec).item<double>(), 4 * 0.55, 0.3);
  EXPECT_LT(awq_clip(W, gram, spec).item<double>(), 4);
  EXPECT_EQ(awq_clip(W, gram, spec, {.steps = 20, .max_shrink = 0}).item<float>(), 4);
  EXPECT_THROW(awq_clip(W, gram, spec, {.steps = 20, .max_shrink = 1}), Error);
}

}  // namespace
}  // namespace statera
