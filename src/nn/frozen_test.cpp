// The product with a frozen weight: the numbers and gradients of the plain one, without its floats in the graph.
#include "nn/frozen.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace statera {
namespace {

class Remembering : public WeightRep {
 public:
  explicit Remembering(at::Tensor W) : W_(std::move(W)) {}
  at::Tensor apply(const at::Tensor& x, const ActQuant*) const override { return frozen_linear(x, *this); }
  at::Tensor dense() const override { return last = W_.clone(); }
  std::optional<QTensor> unpack() const override { return std::nullopt; }
  int64_t bytes() const override { return 0; }
  mutable at::Tensor last;

 private:
  at::Tensor W_;
};

TEST(FrozenLinear, HasTheNumbersAndGradientsOfALinearLayer) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor W = at::randn({6, 9}), g = at::randn({4, 6}).to(dtype);
    const Remembering weight(W);
    at::Tensor x = at::randn({4, 9}).to(dtype).requires_grad_(true), same = x.detach().clone().requires_grad_(true);
    const at::Tensor y = weight.apply(x, nullptr), plain = at::linear(same, W.to(dtype));
    EXPECT_TRUE(at::equal(y, plain));
    (y * g).sum().backward();
    (plain * g).sum().backward();
    EXPECT_TRUE(at::equal(x.grad(), same.grad()));
  }
}

TEST(FrozenLinear, TheGraphKeepsNoFloatsOfTheWeight) {
  const Remembering weight(at::randn({6, 9}));
  const at::Tensor x = at::randn({4, 9}).requires_grad_(true);
  const at::Tensor y = weight.apply(x, nullptr), kept = weight.last;
  ASSERT_TRUE(y.requires_grad());
  EXPECT_EQ(kept.use_count(), 2u);  // the test's and the weight's own
  EXPECT_EQ(kept.storage().use_count(), 1u);
}

}  // namespace
}  // namespace statera
