// See dropout.h. The gradient is the same operation on the gradient, so backward draws the mask once more instead of keeping it.
#include "nn/dropout.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace statera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kGrain = 1 << 14;

at::Tensor dropped(const at::Tensor& x, double p, uint64_t key) {
  const auto dtype = x.scalar_type();
  // torch divides a mask of ones in x's dtype.
  const float kept = (1 / (1 - static_cast<float>(p)));
  const float scale = dtype == at::kBFloat16 ? static_cast<float>(at::BFloat16(kept)) : dtype == at::kHalf ? static_cast<float>(at::Half(kept)) : kept;
  const auto limit = static_cast<uint64_t>(std::ldexp(p, 53));  // of the upper 53 bits of a draw
  const at::Tensor from = x.to(at::kFloat).contiguous();
  at::Tensor y = at::empty_like(from);
  const float* in = from.const_data_ptr<float>();
  float* out = y.mutable_data_ptr<float>();
  const Rng rng(key);
  parallel_for(from.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = (rng.at(static_cast<uint64_t>(i)) >> 11) < limit ? 0 : in[i] * scale;
  });
  return y.to(dtype);
}

struct DropFunction : torch::autograd::Function<DropFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double p, int64_t key) {
    ctx->saved_data["p"] = p;
    ctx->saved_data["key"] = key;
    return dropped(x, p, static_cast<uint64_t>(key));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {dropped(grads[0], ctx->saved_data["p"].toDouble(), static_cast<uint64_t>(ctx->saved_data["key"].toInt())), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor drop(const at::Tensor& x_TK, double p, uint64_t key) {
  check(p > 0 && p < 1, "dropout between 0 and 1");
  return DropFunction::apply(x_TK, p, static_cast<int64_t>(key));
}

}  // namespace statera
