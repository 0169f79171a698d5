// See norm.h.
#include "nn/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

#include "nn/describe.h"
#include "nn/elementwise.h"
#include "nn/fused.h"

namespace statera {

RmsNorm::RmsNorm(const Scope& scope, int64_t size, double eps) : weight_(scope.tensor("weight", {size}, Role::norm)), eps_(eps) {}

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  const profile::Span span("norm", [&] { return describe_elementwise(x); });
  if (trains_in_fp32(x, weight_->value)) return fused_rms_norm(x, weight_->value, eps_);
  if (kernel_reads(x) && !tracked(weight_->value)) return kernel_rms_norm(x, weight_->value, eps_);
  at::Tensor x32 = x.to(at::kFloat);
  at::Tensor n = x32 * at::rsqrt(at::mean(x32 * x32, -1, true) + eps_);
  return n.to(x.scalar_type()) * weight_->value.to(x.scalar_type());
}

LayerNorm::LayerNorm(const Scope& scope, int64_t size, double eps)
    : weight_(scope.tensor("weight", {size}, Role::norm)), bias_(scope.tensor("bias", {size}, Role::norm)), eps_(eps) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  const profile::Span span("norm", [&] { return describe_elementwise(x); });
  auto dtype = x.scalar_type();
  if (kernel_reads(x) && !tracked(weight_->value) && !tracked(bias_->value)) return kernel_layer_norm(x, weight_->value, bias_->value, eps_);
  return at::layer_norm(x, {x.size(-1)}, weight_->value.to(dtype), bias_->value.to(dtype), eps_);
}

}  // namespace statera
