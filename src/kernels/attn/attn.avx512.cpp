// R rows by up to C vectors of 16 columns in registers, down the keys. Specification: attn.scalar.cpp.
#include "kernels/attn/attn.h"

#include <immintrin.h>

namespace statera::kernels::attn {
namespace {

// n <= 16 C columns, `last` of the last vector.
template <int R, int C>
void columns(const float* p, const float* v, int64_t ldv, int64_t keys, __mmask16 last, float* o, int64_t ldo) {
  __m512 acc[R][C];
  __mmask16 mask[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) mask[c] = c + 1 < C ? 0xffff : last;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) acc[r][c] = _mm512_maskz_loadu_ps(mask[c], o + r * ldo + 16 * c);
  for (int64_t j = 0; j < keys; ++j) {
    __m512 row[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      row[c] = _mm512_maskz_loadu_ps(mask[c], v + j * ldv + 16 * c);
      _mm_prefetch(reinterpret_cast<const char*>(v + (j + 8) * ldv + 16 * c), _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512 weight = _mm512_set1_ps(p[r * kKeys + j]);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = _mm512_fmadd_ps(weight, row[c], acc[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) _mm512_mask_storeu_ps(o + r * ldo + 16 * c, mask[c], acc[r][c]);
}

template <int R, int C>
void rows_of(const float* p, const float* v, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) {
  int64_t c = 0;
  for (; c + 16 * C <= n; c += 16 * C) columns<R, C>(p, v + c, ldv, keys, 0xffff, o + c, ldo);
  for (; c < n; c += 16) columns<R, 1>(p, v + c, ldv, keys, n - c >= 16 ? 0xffff : static_cast<__mmask16>((1u << (n - c)) - 1), o + c, ldo);
}

using Kernel = void (*)(const float*, const float*, int64_t, int64_t, int64_t, float*, int64_t);
constexpr Kernel kByRows[] = {nullptr, rows_of<1, 8>, rows_of<2, 8>, rows_of<3, 4>, rows_of<4, 4>, rows_of<5, 4>, rows_of<6, 4>, rows_of<7, 2>, rows_of<8, 2>};

void weigh(const float* p, int64_t rows, const float* v, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) noexcept {
  for (int64_t r = 0; r < rows; r += 8) kByRows[rows - r < 8 ? rows - r : 8](p + r * kKeys, v, ldv, keys, n, o + r * ldo, ldo);
}

}  // namespace

const Table kAvx512 = {weigh};

}  // namespace statera::kernels::attn
