// f32 micro kernel, 6 rows of x by 16 rows of W in 12 registers. Specification: tile.scalar.cpp.
#include "kernels/tile/tile.h"

#include <immintrin.h>

namespace statera::kernels::tile {
namespace {

template <int R>
void rows_by_16(const float* x, const float* w, int64_t k, const float* init, int64_t ld_init, float* y, int64_t ldy, const char* ahead) {
  __m256 acc[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    _mm_prefetch(reinterpret_cast<const char*>(init + r * ld_init), _MM_HINT_T0);
  }
  const auto step = [&](int64_t i) __attribute__((always_inline)) {
    const __m256 w0 = _mm256_loadu_ps(w + i * 16), w1 = _mm256_loadu_ps(w + i * 16 + 8);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m256 a = _mm256_broadcast_ss(x + r * kTileK + i);
      acc[r][0] = _mm256_fmadd_ps(a, w0, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(a, w1, acc[r][1]);
    }
    asm volatile("" ::: "memory");  // or GCC loads ahead for the steps that follow and runs out of registers
  };
  int64_t i = 0;
  for (; i + 4 <= k; i += 4) {  // a cache line ahead; as few instructions beside FMAs as may be
    _mm_prefetch(ahead + 16 * i, _MM_HINT_T1);
#pragma GCC unroll 4
    for (int64_t j = 0; j < 4; ++j) step(i + j);
  }
  for (; i < k; ++i) step(i);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    _mm256_storeu_ps(y + r * ldy, _mm256_add_ps(_mm256_loadu_ps(init + r * ld_init), acc[r][0]));
    _mm256_storeu_ps(y + r * ldy + 8, _mm256_add_ps(_mm256_loadu_ps(init + r * ld_init + 8), acc[r][1]));
  }
}

void micro(const float* x, int rows, const float* w, int blocks, int64_t k, const float* init, int64_t ld_init, float* y,
           int64_t ldy, const void* ahead) noexcept {
  using Kernel = void (*)(const float*, const float*, int64_t, const float*, int64_t, float*, int64_t, const char*);
  const char* next = static_cast<const char*>(ahead ? ahead : w);
  static constexpr Kernel kByRows[] = {nullptr, rows_by_16<1>, rows_by_16<2>, rows_by_16<3>, rows_by_16<4>, rows_by_16<5>, rows_by_16<6>};
  for (int b = 0; b < blocks; ++b) kByRows[rows](x, w + b * kTileK * kRowBlock, k, init + b * 16, ld_init, y + b * 16, ldy, next);
}

}  // namespace

const Table kAvx2 = {6, micro};

}  // namespace statera::kernels::tile
