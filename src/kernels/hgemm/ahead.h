// What decoding asks for before use, once for AVX2 and AVX-512: weights into the second-level cache, since into the first they come half as fast
// (Zen 4, docs/performance/kernels.md).
#pragma once

#include "kernels/hgemm/hgemm.h"

namespace statera::kernels::hgemm {
namespace {

// R rows side by side, of k elements each: asks for what lies `Bytes` further on in the order in which they are read, behind their end in the next R
// rows. Cache: the level it is asked into, 1 or 2.
template <Type T, int R, int Bytes = 8192, int Cache = 2>
struct Ahead {
  static constexpr int64_t kSize = size_of(T), kElements = Bytes / R / kSize;
  const char* data;
  int64_t ldw, before_end, behind_end, end;  // distances where it lies in rows as many groups on, or one more
  Ahead(const Rows& w, int64_t columns) : data(static_cast<const char*>(w.data)), ldw(w.ldw) {
    const int64_t k = columns > 0 ? columns : 1;
    before_end = kElements / k * R * ldw + kElements % k;
    behind_end = before_end + R * ldw - k;
    end = k - kElements % k;
  }
  // For the `bytes` that begin with element i of row `row` and of those beside it.
  inline __attribute__((always_inline)) void ask(int row, int64_t i, int64_t bytes) const {
    const char* from = data + (row * ldw + i + (i < end ? before_end : behind_end)) * kSize;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(from + r * ldw * kSize + b, 0, 4 - Cache);
  }
};

}  // namespace
}  // namespace statera::kernels::hgemm
