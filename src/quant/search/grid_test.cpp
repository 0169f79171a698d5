// Grids against rtn() of nn, the specification, and clip search against its definition.
#include "quant/search/grid.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "quant/search/test_tensors.h"

namespace statera {
namespace {

TEST(Grid, ScalesAndZeroPointsAreThoseOfRtnInEveryDtype) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (int bits = 2; bits <= 8; ++bits) {
      for (int64_t group : {int64_t{-1}, int64_t{8}, int64_t{17}, int64_t{64}, int64_t{200}}) {
        for (bool symmetric : {true, false}) {
          const QSpec spec{bits, group, symmetric};
          at::Tensor w = weight_matrix(13, 96, static_cast<uint64_t>(bits)).to(dtype);
          w[3].zero_();
          w[4].abs_();
          const QTensor expected = rtn(w, spec);
          const WeightGrid grid = fit_grid(w, spec);
          ASSERT_TRUE(at::equal(grid.scale, expected.scale));
          ASSERT_EQ(grid.scale.scalar_type(), dtype);
          if (!symmetric) {
            ASSERT_TRUE(at::equal(grid.zero, expected.zero));
          }
          const QTensor rounded = round_on(w, grid, spec);
          if (dtype == at::kFloat) {
            ASSERT_TRUE(at::equal(rounded.q, expected.q));
          }
        }
      }
    }
  }
}

TEST(Grid, OwnRangesAreThoseOfRtnInEveryDtype) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (int bits = 2; bits <= 8; ++bits) {
      for (int64_t group : {int64_t{-1}, int64_t{17}, int64_t{64}}) {
        const QSpec spec{.bits = bits, .group = group, .symmetric = false, .own_range = true};
        at::Tensor w = weight_matrix(13, 96, static_cast<uint64_t>(bits)).to(dtype);
        w[3].zero_();
        w[4].abs_().add_(0.1);
        const QTensor expected = rtn(w, spec);
        const WeightGrid grid = fit_grid(w, spec);
        ASSERT_TRUE(at::equal(grid.scale, expected.scale));
        ASSERT_TRUE(at::equal(grid.zero, expected.zero));
        if (dtype == at::kFloat) {
          ASSERT_TRUE(at::equal(round_on(w, grid, spec).q, expected.q));
        }
      }
    }
  }
}

TEST(Grid, SixteenBitWeightsAreRoundedToTheNearestCodeWhichRtnMisses) {
  const at::Tensor w = weight_matrix(64, 256, 5).to(at::kBFloat16);
  const QSpec spec{8, -1, true};
  const at::Tensor nearest = (round_on(w, fit_grid(w, spec), spec).dequantize() - w.to(at::kFloat)).abs();
  const at::Tensor plain = (rtn(w, spec).dequantize() - w.to(at::kFloat)).abs();
  EXPECT_TRUE((nearest <= plain + 1e-9).all().item<bool>());
  EXPECT_LT(nearest.square().sum().item<double>(), 0.95 * plain.square().sum().item<double>());
}

TEST(Grid, ClipSearchPicksTheFirstLeastErrorOfItsFactors) {
  const ClipSearch clip{2.4, 100, 0.8};
  EXPECT_EQ(clip.candidates(), 80);
  for (bool symmetric : {true, false}) {
    at::Tensor w = weight_matrix(5, 40, 9);
    w[2][7] = 1.5f;
    const QSpec spec{3, 16, symmetric};
    const WeightGrid found = fit_grid(w, spec, clip);
    for (int64_t n = 0; n < 5; ++n) {
      for (int64_t g = 0; g < 3; ++g) {
        const at::Tensor part = w[n].slice(0, g * 16, std::min<int64_t>(40, g * 16 + 16)).unsqueeze(0);
        double least = 1e30;
        float scale = 0;
        for (int i = 0; i < 80; ++i) {
          const GroupRange range = group_range(part, {3, -1, symmetric});
          const double shrink = 1 - i / 100.0;
          const WeightGrid trial = grid_of({range.low * shrink, range.high * shrink}, {3, -1, symmetric});
          const at::Tensor off = round_on(part, trial, {3, -1, symmetric}).dequantize() - part;
          const double error = off.abs().to(at::kDouble).pow(2.4).sum().item<double>();
          if (error < least * (1 - 1e-6)) least = error, scale = trial.scale.item<float>();
        }
        EXPECT_EQ(found.scale[n][g].item<float>(), scale) << n << " " << g;
      }
    }
  }
}

TEST(Grid, ClipSearchNeverRoundsWorseInItsOwnNorm) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const at::Tensor w = weight_matrix(16, 128, seed);
    const QSpec spec{3, 32, seed % 2 == 0};
    auto error = [&](const WeightGrid& g) { return (round_on(w, g, spec).dequantize() - w).square().sum().item<double>(); };
    EXPECT_LT(error(fit_grid(w, spec, ClipSearch{2, 100, 0.8})), error(fit_grid(w, spec)));
  }
}

TEST(Grid, BadClipOptionsAndDtypesAreRefused) {
  EXPECT_THROW(fit_grid(at::zeros({2, 2}), {}, ClipSearch{0, 100, 0.8}), Error);
  EXPECT_THROW(fit_grid(at::zeros({2, 2}), {}, ClipSearch{2, 100, 1}), Error);
  EXPECT_THROW(fit_grid(at::zeros({2, 2}), {9, -1, true}), Error);
  EXPECT_THROW(fit_grid(at::zeros({2, 2}, at::kInt), {}), Error);
}

TEST(GramLoss, IsTheWeightedSquaredErrorOfTheOutput) {
  const at::Tensor x = activations(50, 12, 3), D = normal_matrix(7, 12, 4), c = normal_matrix(1, 50, 5)[0].abs();
  const double loss = (at::matmul(x, D.t()).square().sum(1) * c).to(at::kDouble).sum().item<double>();
  EXPECT_NEAR(gram_loss(D, gram_of(x, c)) / loss, 1, 1e-5);
  EXPECT_NEAR(gram_loss(D, gram_of(x)) / at::matmul(x, D.t()).square().sum().item<double>(), 1, 1e-5);
  const at::Tensor tall = normal_matrix(300, 12, 6);
  double parts = 0;
  for (int64_t n = 0; n < 300; n += 100) parts += gram_loss(tall.slice(0, n, n + 100), gram_of(x));
  EXPECT_NEAR(gram_loss(tall, gram_of(x)) / parts, 1, 1e-6);
}

}  // namespace
}  // namespace statera
