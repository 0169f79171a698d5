// SmoothQuant's scales: the formula and its limits, neutrality of the fold, and less error than plain rounding where outliers are.
#include "quant/methods/smoothquant/algo.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "nn/topology.h"
#include "quant/search/test_tensors.h"

namespace statera {
namespace {

// norm weight -> two readers: a toy of the first half of an attention block.
struct ToyGroup {
  explicit ToyGroup(int64_t K, uint64_t seed) {
    norm->value = normal_matrix(1, K, seed)[0].abs() + 0.5;
    for (uint64_t i = 0; i < 2; ++i) {
      auto site = std::make_shared<LinearSite>();
      site->in = K;
      site->out = 24;
      site->weight = make_dense(weight_matrix(24, K, seed + 1 + i));
      group.readers.push_back(Linear(site));
    }
    group.name = "toy";
    group.norm = {norm};
    group.channels = K;
  }
  at::Tensor input(const at::Tensor& h) const { return h * norm->value; }
  at::Tensor output(const at::Tensor& h, size_t reader) const { return at::matmul(input(h), weights()[reader].t()); }
  std::vector<at::Tensor> weights() const { return {group.readers[0].site().weight->dense(), group.readers[1].site().weight->dense()}; }
  std::shared_ptr<TensorSite> norm = std::make_shared<TensorSite>();
  ScaleGroup group;
};

double w8a8_loss(const ToyGroup& toy, const at::Tensor& h, const std::vector<at::Tensor>& reference) {
  double loss = 0;
  const at::Tensor x = fake_quantize(toy.input(h), ActQuant{8});
  for (size_t i = 0; i < 2; ++i) {
    const at::Tensor y = at::matmul(x, rtn(toy.weights()[i], {8, -1, true}).dequantize().t());
    loss += (y - reference[i]).square().sum().item<double>();
  }
  return loss;
}

TEST(SmoothQuant, FollowsTheFormulaAndItsGuards) {
  const at::Tensor x = at::tensor({4.f, 0.f, 100.f}), w = at::tensor({1.f, 0.5f, 0.f});
  const at::Tensor s = smooth_scale(x, w, 0.5);
  EXPECT_FLOAT_EQ(s[0].item<float>(), 2);
  EXPECT_FLOAT_EQ(s[1].item<float>(), 1e-5f);                   // never active
  EXPECT_NEAR(s[2].item<float>(), 10 / std::sqrt(1e-5), 0.01);  // never weighted
}

TEST(SmoothQuant, AlphaOneEvensActivationsAndAlphaZeroWeights) {
  const at::Tensor x = normal_matrix(1, 50, 1)[0].abs() + 0.1, w = normal_matrix(1, 50, 2)[0].abs() + 0.1;
  EXPECT_LT((x / smooth_scale(x, w, 1) - 1).abs().max().item<double>(), 1e-6);
  EXPECT_LT((w * smooth_scale(x, w, 0) - 1).abs().max().item<double>(), 1e-6);
  const at::Tensor half = smooth_scale(x, w, 0.5);
  EXPECT_LT((x / half / (w * half) - 1).abs().max().item<double>(), 1e-5);
}

TEST(SmoothQuant, WeightMaximumIsOverAllRowsOfAllReaders) {
  const std::vector<at::Tensor> W{at::tensor({1.f, -2.f, 0.5f, 1.f}).reshape({2, 2}), at::tensor({-3.f, 0.f}).reshape({1, 2})};
  EXPECT_TRUE(at::equal(weight_abs_max(W), at::tensor({3.f, 2.f})));
}

TEST(SmoothQuant, FoldIsNeutral) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    ToyGroup toy(64, seed);
    const at::Tensor h = activations(40, 64, seed + 9);
    const std::vector<at::Tensor> before{toy.output(h, 0), toy.output(h, 1)};
    fold_scale(toy.group, smooth_scale(toy.input(h).abs().amax(0), weight_abs_max(toy.weights()), 0.5));
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_LT((toy.output(h, i) - before[i]).abs().max().item<double>() / before[i].abs().max().item<double>(), 2e-6);
    }
  }
}

TEST(SmoothQuant, HelpsWherePlainRoundingMeetsOutliers) {
  double worst = 0, sum = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    ToyGroup toy(128, seed);
    const at::Tensor h = activations(200, 128, seed + 40);
    const std::vector<at::Tensor> reference{toy.output(h, 0), toy.output(h, 1)};
    const double plain = w8a8_loss(toy, h, reference);
    fold_scale(toy.group, smooth_scale(toy.input(h).abs().amax(0), weight_abs_max(toy.weights()), 0.5));
    const double ratio = w8a8_loss(toy, h, reference) / plain;
    worst = std::max(worst, ratio);
    sum += ratio / 12;
  }
  RecordProperty("worst", std::to_string(worst));
  RecordProperty("mean", std::to_string(sum));
  EXPECT_LT(worst, 0.8);
}

TEST(SmoothQuant, AlphaOutsideTheUnitIntervalIsRefused) {
  const at::Tensor one = at::tensor({1.f});
  EXPECT_THROW(smooth_scale(one, one, -0.1), Error);
  EXPECT_THROW(smooth_scale(one, one, 1.1), Error);
  EXPECT_THROW(smooth_scale(one, at::tensor({1.f, 2.f}), 0.5), Bug);
}

}  // namespace
}  // namespace statera
