// Dropout of what an adapter reads: torch's scaling, a mask of key and place, its gradient, and its place in a linear layer.
#include "nn/dropout.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "base/threads.h"
#include "nn/linear.h"

namespace statera {
namespace {

double largest(const at::Tensor& t) { return t.abs().max().item<double>(); }

TEST(Dropout, ElementsAreZeroOrDividedByWhatIsKept) {
  const at::Tensor y = drop(at::ones({40, 50}), 0.25, 7);
  const float* p = y.const_data_ptr<float>();
  int64_t dropped = 0;
  for (int64_t i = 0; i < y.numel(); ++i) {
    if (p[i] == 0) {
      ++dropped;
    } else {
      EXPECT_EQ(p[i], 1 / 0.75f);
    }
  }
  EXPECT_NEAR(static_cast<double>(dropped) / 2000, 0.25, 4 * std::sqrt(0.25 * 0.75 / 2000));
}

TEST(Dropout, TheMeanOverMasksIsTheInput) {
  const at::Tensor x = at::randn({8, 16});
  at::Tensor sum = at::zeros_like(x);
  constexpr int kDraws = 4000;
  for (uint64_t key = 0; key < kDraws; ++key) sum += drop(x, 0.4, key);
  // A mean's deviation is |x| sqrt(p / (1 - p) / n).
  EXPECT_LT(largest((sum / kDraws - x) / x.abs()), 5 * std::sqrt(0.4 / 0.6 / kDraws));
}

TEST(Dropout, MasksAreFunctionsOfKeyAndPlaceWhateverTheThreads) {
  const at::Tensor x = at::randn({300, 200});
  const int before = num_threads();
  set_num_threads(1);
  const at::Tensor one = drop(x, 0.1, 3);
  set_num_threads(3);
  EXPECT_TRUE(at::equal(drop(x, 0.1, 3), one));
  set_num_threads(before);
  EXPECT_FALSE(at::equal(drop(x, 0.1, 4), one));
  EXPECT_TRUE(at::equal(drop(x.slice(0, 0, 5), 0.1, 3), one.slice(0, 0, 5)));
}

TEST(Dropout, SixteenBitsAreScaledByTheFactorInThatType) {
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor y = drop(at::ones({1, 64}).to(dtype), 0.3, 1);
    EXPECT_EQ(y.scalar_type(), dtype);
    const at::Tensor kept = (at::ones({1}).to(dtype) / 0.7).to(at::kFloat);
    EXPECT_EQ(y.to(at::kFloat).max().item<float>(), kept.item<float>());
  }
}

TEST(Dropout, TheGradientPassesWhereTheInputDid) {
  at::Tensor x = at::randn({6, 10}).requires_grad_(true);
  const at::Tensor g = at::randn({6, 10});
  (drop(x, 0.5, 11) * g).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), g * drop(at::ones({6, 10}), 0.5, 11)));
}

TEST(Dropout, AnAdapterReadsTheDroppedInputAndTheLayerTheWhole) {
  auto site = std::make_shared<LinearSite>();
  site->path = "model.layers.3.self_attn.q_proj";
  site->out = 5;
  site->in = 12;
  const at::Tensor W = at::randn({5, 12}), A = at::randn({2, 12}), B = at::randn({5, 2}), x = at::randn({7, 12});
  site->weight = make_dense(W);
  site->adapter = std::make_shared<Adapter>(Adapter{A, B, 0.5, 0.4, 99});
  const at::Tensor mask = drop(at::ones({7, 12}), 0.4, mix64(99 ^ hash_name(site->path)));
  const at::Tensor wanted = at::linear(x, W) + at::linear(at::linear(x * mask, A), B) * 0.5;  // PEFT's lora.Linear
  EXPECT_LT(largest(Linear(site)(x, Pass{}) - wanted), 1e-5);
  site->adapter->dropout = 0;
  EXPECT_LT(largest(Linear(site)(x, Pass{}) - at::linear(x, W) - at::linear(at::linear(x, A), B) * 0.5), 1e-5);
}

}  // namespace
}  // namespace statera
