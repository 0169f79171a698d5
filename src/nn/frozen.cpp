// See frozen.h.
#include "nn/frozen.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/custom_function.h>

namespace statera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FrozenLinear : torch::autograd::Function<FrozenLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, int64_t weight) {
    ctx->saved_data["weight"] = weight;
    return at::linear(x, dense(weight, x.scalar_type()));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {at::matmul(grads[0], dense(ctx->saved_data["weight"].toInt(), grads[0].scalar_type())), at::Tensor()};
  }
  static at::Tensor dense(int64_t weight, at::ScalarType dtype) { return reinterpret_cast<const WeightRep*>(weight)->dense().to(dtype); }
};

}  // namespace

at::Tensor frozen_linear(const at::Tensor& x_TK, const WeightRep& weight) {
  if (!at::GradMode::is_enabled() || !x_TK.requires_grad()) return at::linear(x_TK, weight.dense().to(x_TK.scalar_type()));
  return FrozenLinear::apply(x_TK, reinterpret_cast<int64_t>(&weight));
}

}  // namespace statera
