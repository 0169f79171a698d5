// See kv_cache.h.
#include "nn/kv_cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/error.h"

namespace statera {
namespace {

// rows [T, K, d] into `to` from row `at` on. A step's single row is not worth an operator.
void put(const at::Tensor& rows, at::Tensor& to, int64_t at) {
  if (rows.is_contiguous() && rows.scalar_type() == to.scalar_type()) {
    std::memcpy(static_cast<std::byte*>(to.mutable_data_ptr()) + static_cast<size_t>(at * to.stride(0)) * to.element_size(), rows.const_data_ptr(), rows.nbytes());
  } else {
    to.narrow(0, at, rows.size(0)).copy_(rows);
  }
}

}  // namespace

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  Layer& l = layers_.at(static_cast<size_t>(layer));
  const int64_t need = l.length + k.size(0);
  int64_t capacity = l.k.defined() ? l.k.size(0) : 0;
  if (need > capacity) {
    int64_t larger = std::max<int64_t>({need, capacity * 2, 64});
    at::Tensor nk = at::empty({larger, k.size(1), k.size(2)}, k.options());
    at::Tensor nv = at::empty({larger, v.size(1), v.size(2)}, v.options());
    if (l.length > 0) {
      nk.narrow(0, 0, l.length).copy_(l.k.narrow(0, 0, l.length));
      nv.narrow(0, 0, l.length).copy_(l.v.narrow(0, 0, l.length));
    }
    l.k = nk;
    l.v = nv;
  }
  put(k, l.k, l.length);
  put(v, l.v, l.length);
  l.length = need;
  return {l.k.narrow(0, 0, need), l.v.narrow(0, 0, need)};
}

void KvCache::truncate(int64_t length) {
  for (Layer& l : layers_) {
    check(length <= l.length, "KvCache::truncate beyond its length");
    l.length = length;
  }
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const Layer& l : layers_) {
    if (l.k.defined()) total += (l.k.numel() + l.v.numel()) * static_cast<int64_t>(l.k.element_size());
  }
  return total;
}

}  // namespace statera
