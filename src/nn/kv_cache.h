// KvCache: the keys and values of one sequence, for every layer of a stack. Grows by doubling; rows are appended in order.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace statera {

class KvCache {
 public:
  explicit KvCache(int64_t layers) : layers_(static_cast<size_t>(layers)) {}
  // Appends k, v [T, K, d] to a layer and returns views of all rows so far.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k_TKd, const at::Tensor& v_TKd);
  // Rows held by a layer (all layers agree between passes).
  int64_t length(int64_t layer = 0) const { return layers_[static_cast<size_t>(layer)].length; }
  // Forgets the rows from `length` on.
  void truncate(int64_t length);
  int64_t bytes() const;

 private:
  struct Layer {
    at::Tensor k, v;  // [capacity, K, d]
    int64_t length = 0;
  };
  std::vector<Layer> layers_;
};

}  // namespace statera
