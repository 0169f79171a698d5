// Linear: a copyable handle on a LinearSite; its call (or that of the functions below, for several at once) is the only place where a
// weight meets an activation. In order: input rotation, activation quantizer and weight representation, bias, adapter, tap (which gets the
// rotated, unquantized x, and y).
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <vector>

#include "nn/elementwise.h"
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

// Rows of a layer, `count` of them from `first` on.
struct LinearRows {
  const Linear* layer = nullptr;
  int64_t first = 0, count = 0;
};
// kind(gate(x)) * up(x), of as many rows of both (of no layer: 1), each column finished while it is in the cache; nothing where that cannot be: weights
// that are not packed alike or not met in integers, adapters, a tap that hears layers, a graph. x [..., K] -> [..., count].
std::optional<at::Tensor> activated_together(Activation kind, const LinearRows& gate, const LinearRows& up, const at::Tensor& x, const Pass& pass);
// down of that, whose input is quantized while its columns are in the cache, so that it is never written down in floats; nothing, too, where down
// is not given such an input: scales that are not static, weights in groups, few rows, a rotation or an adapter before it.
std::optional<at::Tensor> fed_forward(Activation kind, const LinearRows& gate, const LinearRows& up, const Linear& down, const at::Tensor& x, const Pass& pass);

// What calling each of the layers gives, when x can serve all of them at once (their weights are packed and their inputs quantized alike);
// nothing when not. x [..., K].
std::optional<std::vector<at::Tensor>> together(std::initializer_list<const Linear*> layers, const at::Tensor& x, const Pass& pass);

}  // namespace statera
