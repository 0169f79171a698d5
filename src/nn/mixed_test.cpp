// Products in bf16 inside a graph: those of rounded matrices, forward and for both gradients, while the weight stays fp32.
#include "nn/mixed.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "base/threads.h"

namespace statera {
namespace {

at::Tensor rounded(const at::Tensor& t) { return t.detach().to(at::kBFloat16).to(at::kDouble); }

// Largest difference by the size of the terms of a sum.
double off(const at::Tensor& got, const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor size = at::matmul(a.abs(), b.abs());
  return ((got.to(at::kDouble) - at::matmul(a, b)).abs() / size).max().item<double>();
}

TEST(MixedLinear, ProductsAndGradientsAreThoseOfRoundedMatrices) {
  for (const int64_t T : {1, 37, 300}) {
    const at::Tensor g = at::randn({T, 50});
    at::Tensor W = at::randn({50, 70}).requires_grad_(true), x = at::randn({T, 70}).requires_grad_(true);
    const at::Tensor y = make_mixed(W)->apply(x, nullptr);
    EXPECT_LT(off(y, rounded(x), rounded(W).t()), 1e-6);
    (y * g).sum().backward();
    EXPECT_LT(off(x.grad(), rounded(g), rounded(W)), 1e-6);
    EXPECT_LT(off(W.grad(), rounded(g).t(), rounded(x)), 1e-6);
  }
}

TEST(MixedLinear, OnlyWhatLearnsGetsAGradient) {
  const at::Tensor W = at::randn({8, 16});
  at::Tensor x = at::randn({3, 16}).requires_grad_(true);
  make_mixed(W)->apply(x, nullptr).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(W.grad().defined());
  EXPECT_FALSE(make_mixed(W)->apply(x.detach(), nullptr).requires_grad());
}

TEST(MixedLinear, ThreadsDoNotChangeAProduct) {
  const at::Tensor W = at::randn({200, 96}), x = at::randn({500, 96});
  const int before = num_threads();
  set_num_threads(1);
  const at::Tensor alone = make_mixed(W)->apply(x, nullptr);
  set_num_threads(3);
  const at::Tensor together = make_mixed(W)->apply(x, nullptr);
  set_num_threads(before);
  EXPECT_TRUE(at::equal(alone, together));
}

TEST(MixedLinear, IsKnownFromOthers) {
  EXPECT_TRUE(is_mixed(*make_mixed(at::randn({2, 2}))));
  EXPECT_FALSE(is_mixed(*make_dense(at::randn({2, 2}))));
}

}  // namespace
}  // namespace statera
