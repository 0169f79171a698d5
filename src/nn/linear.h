// Linear: a copyable handle on a LinearSite; its call is the only place where a weight meets an activation. In order: input rotation,
// activation quantizer and weight representation, bias, adapter, tap (which gets the rotated, unquantized x, and y).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "nn/pass.h"
#include "nn/site.h"

namespace statera {

class Linear {
 public:
  Linear() = default;
  explicit Linear(std::shared_ptr<LinearSite> site) : site_(std::move(site)) {}
  // x [..., K] -> [..., N], in x's dtype.
  at::Tensor operator()(const at::Tensor& x, const Pass& pass) const;
  LinearSite& site() const { return *site_; }
  const std::shared_ptr<LinearSite>& handle() const { return site_; }
  explicit operator bool() const { return site_ != nullptr; }

 private:
  std::shared_ptr<LinearSite> site_;
};

}  // namespace statera
