// Normalisation layers. Statistics in fp32, result in x's dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "nn/scope.h"

namespace statera {

// w * cast(x * rsqrt(mean(x^2) + eps)), Llama's form: the product with w in the model dtype.
class RmsNorm {
 public:
  RmsNorm() = default;
  RmsNorm(const Scope& scope, int64_t size, double eps);
  at::Tensor operator()(const at::Tensor& x) const;  // over the last dimension
  const std::shared_ptr<TensorSite>& weight() const { return weight_; }

 private:
  std::shared_ptr<TensorSite> weight_;
  double eps_ = 1e-6;
};

// Layer norm with weight and bias.
class LayerNorm {
 public:
  LayerNorm() = default;
  LayerNorm(const Scope& scope, int64_t size, double eps);
  at::Tensor operator()(const at::Tensor& x) const;
  const std::shared_ptr<TensorSite>& weight() const { return weight_; }
  const std::shared_ptr<TensorSite>& bias() const { return bias_; }

 private:
  std::shared_ptr<TensorSite> weight_, bias_;
  double eps_ = 1e-6;
};

}  // namespace statera
