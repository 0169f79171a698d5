// Elementwise work through the kernels against ATen, and what becomes of operands that are given away.
#include "nn/elementwise.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <gtest/gtest.h>

#include "base/threads.h"
#include "nn/rope.h"

namespace statera {
namespace {

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(NnElementwise, NormsEqualAtensForEveryTypeOfWeights) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = at::randn({37, 3, 72}) * 4 + 1, w = at::randn({72}).to(dtype), b = at::randn({72}).to(dtype);
    const at::Tensor w32 = w.to(at::kFloat), b32 = b.to(at::kFloat);
    EXPECT_LT(difference(kernel_rms_norm(x, w, 1e-6), x * at::rsqrt(at::mean(x * x, -1, true) + 1e-6) * w32), 2e-6);
    EXPECT_LT(difference(kernel_layer_norm(x, w, b, 1e-6), at::layer_norm(x, {72}, w32, b32, 1e-6)), 4e-6);
    const at::Tensor part = x.slice(2, 8, 72).select(1, 1);  // rows that lie apart
    EXPECT_LT(difference(kernel_rms_norm(part, w.slice(0, 8, 72), 1e-6), part * at::rsqrt(at::mean(part * part, -1, true) + 1e-6) * w32.slice(0, 8, 72)), 2e-6);
  }
}

TEST(NnElementwise, ActivationsEqualAtens) {
  const at::Tensor x = at::randn({29, 2 * 530}) * 3, a = x.slice(1, 0, 530), b = x.slice(1, 530);
  const std::pair<Activation, at::Tensor> expected[] = {{Activation::silu, at::silu(a)},
                                                        {Activation::gelu, at::gelu(a)},
                                                        {Activation::gelu_tanh, at::gelu(a, "tanh")},
                                                        {Activation::quick_gelu, a * at::sigmoid(a * 1.702)},
                                                        {Activation::relu, at::relu(a)}};
  for (const auto& [kind, y] : expected) {
    EXPECT_LT(difference(activate(kind, a), y), 2e-6) << static_cast<int>(kind);
    EXPECT_LT(difference(activate_times(kind, a, b), y * b), 1e-5) << static_cast<int>(kind);
  }
}

TEST(NnElementwise, RotationEqualsAtensForSlicesAndPartialWidths) {
  for (const auto& [d, r] : {std::pair<int64_t, int64_t>{80, 80}, {128, 128}, {96, 32}}) {
    const at::Tensor x = at::randn({33, 3, 4, d}).select(1, 1), cos = at::randn({33, r}), sin = at::randn({33, r});
    at::Tensor part = x.slice(2, 0, r), turned = at::cat({-part.slice(2, r / 2, r), part.slice(2, 0, r / 2)}, 2);
    at::Tensor expected = at::cat({part * cos.unsqueeze(1) + turned * sin.unsqueeze(1), x.slice(2, r, d)}, 2);
    EXPECT_LT(difference(apply_rope(x, cos, sin), expected), 2e-6) << d;
  }
}

TEST(NnElementwise, AnOperandThatSomebodyHoldsKeepsItsValues) {
  const at::Tensor a = at::randn({8, 16}), bias = at::randn({16});
  at::Tensor held = at::randn({8, 16});
  const at::Tensor view = held.slice(0, 0, 4), before = held.clone();
  sum(a, held);
  add_bias(held, bias);
  activate(Activation::silu, held);
  activate_times(Activation::silu, held, a);
  EXPECT_TRUE(held.equal(before));
  sum(a, std::move(held));  // a view is left
  EXPECT_TRUE(view.equal(before.slice(0, 0, 4)));
}

TEST(NnElementwise, AnOperandGivenAwayLendsItsMemory) {
  at::Tensor given = at::randn({8, 16});
  const void* memory = given.const_data_ptr();
  const at::Tensor a = at::randn({8, 16}), expected = a + given;
  const at::Tensor y = sum(a, std::move(given));
  EXPECT_EQ(y.const_data_ptr(), memory);
  EXPECT_TRUE(y.equal(expected));
}

TEST(NnElementwise, WithAGraphGradientsFlow) {
  at::AutoGradMode graphs(true);
  const at::Tensor a = at::randn({3, 4}).requires_grad_(true), plain = at::randn({3, 4});
  EXPECT_TRUE(sum(plain, a).requires_grad());
  EXPECT_TRUE(sum(a, plain).requires_grad());
  EXPECT_TRUE(add_bias(at::randn({3, 4}), at::randn({4}).requires_grad_(true)).requires_grad());
  EXPECT_TRUE(activate(Activation::gelu, a).requires_grad());
  EXPECT_TRUE(activate_times(Activation::gelu, plain, a).requires_grad());
}

TEST(NnElementwise, TheNumberOfThreadsChangesNoBit) {
  const at::Tensor x = at::randn({300, 700}), w = at::randn({700}), b = at::randn({700});
  const int before = num_threads();
  std::vector<at::Tensor> first;
  for (int threads : {1, 3}) {
    set_num_threads(threads);
    const at::Tensor all[] = {kernel_rms_norm(x, w, 1e-6), kernel_layer_norm(x, w, b, 1e-6), activate(Activation::gelu, x), sum(x, x), add_bias(x.clone(), b)};
    for (size_t i = 0; i < std::size(all); ++i) {
      if (threads == 1) first.push_back(all[i]);
      EXPECT_TRUE(all[i].equal(first[i])) << i;
    }
  }
  set_num_threads(before);
}

}  // namespace
}  // namespace statera
