// f32 micro kernel, 12 rows of x by 32 rows of W in 24 registers. Specification: tile.scalar.cpp.
#include "kernels/tile/tile.h"

#include <immintrin.h>

namespace statera::kernels::tile {
namespace {

template <int R, int B>
void rows_by_blocks(const float* x, const float* w, int64_t k, const float* init, int64_t ld_init, float* y, int64_t ldy, const char* ahead) {
  __m512 acc[R][B];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) {
      acc[r][b] = _mm512_setzero_ps();
      _mm_prefetch(reinterpret_cast<const char*>(init + r * ld_init + 16 * b), _MM_HINT_T0);
    }
  for (int64_t i = 0; i < k; ++i) {
    __m512 wb[B];
    _mm_prefetch(ahead + 16 * i, _MM_HINT_T1);
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) wb[b] = _mm512_loadu_ps(w + b * kTileK * kRowBlock + i * 16);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const __m512 a = _mm512_set1_ps(x[r * kTileK + i]);
#pragma GCC unroll 2
      for (int b = 0; b < B; ++b) acc[r][b] = _mm512_fmadd_ps(a, wb[b], acc[r][b]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) _mm512_storeu_ps(y + r * ldy + 16 * b, _mm512_add_ps(_mm512_loadu_ps(init + r * ld_init + 16 * b), acc[r][b]));
}

using Kernel = void (*)(const float*, const float*, int64_t, const float*, int64_t, float*, int64_t, const char*);
template <int B>
constexpr Kernel kByRows[] = {nullptr,
                              rows_by_blocks<1, B>,
                              rows_by_blocks<2, B>,
                              rows_by_blocks<3, B>,
                              rows_by_blocks<4, B>,
                              rows_by_blocks<5, B>,
                              rows_by_blocks<6, B>,
                              rows_by_blocks<7, B>,
                              rows_by_blocks<8, B>,
                              rows_by_blocks<9, B>,
                              rows_by_blocks<10, B>,
                              rows_by_blocks<11, B>,
                              rows_by_blocks<12, B>};

void micro(const float* x, int rows, const float* w, int blocks, int64_t k, const float* init, int64_t ld_init, float* y,
           int64_t ldy, const void* ahead) noexcept {
  (blocks == 2 ? kByRows<2> : kByRows<1>)[rows](x, w, k, init, ld_init, y, ldy, static_cast<const char*>(ahead ? ahead : w));
}

}  // namespace

const Table kAvx512 = {12, micro};

}  // namespace statera::kernels::tile
