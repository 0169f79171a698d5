// R rows by up to C vectors of 8 columns in registers, down the keys. Specification: attn.scalar.cpp.
#include "kernels/attn/attn.h"

#include <immintrin.h>

namespace statera::kernels::attn {
namespace {

template <int R, int C>
void columns(const float* p, const float* v, int64_t ldv, int64_t keys, float* o, int64_t ldo) {
  __m256 acc[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) acc[r][c] = _mm256_loadu_ps(o + r * ldo + 8 * c);
  for (int64_t j = 0; j < keys; ++j) {
    __m256 row[C];
    _mm_prefetch(reinterpret_cast<const char*>(v + (j + 8) * ldv), _MM_HINT_T0);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) row[c] = _mm256_loadu_ps(v + j * ldv + 8 * c);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m256 weight = _mm256_broadcast_ss(p + r * kKeys + j);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = _mm256_fmadd_ps(weight, row[c], acc[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) _mm256_storeu_ps(o + r * ldo + 8 * c, acc[r][c]);
}

template <int R, int C>
void rows_of(const float* p, const float* v, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) {
  int64_t c = 0;
  for (; c + 8 * C <= n; c += 8 * C) columns<R, C>(p, v + c, ldv, keys, o + c, ldo);
  for (; c + 8 <= n; c += 8) columns<R, 1>(p, v + c, ldv, keys, o + c, ldo);
  for (; c < n; ++c)
    for (int64_t r = 0; r < R; ++r)
      for (int64_t j = 0; j < keys; ++j) o[r * ldo + c] += p[r * kKeys + j] * v[j * ldv + c];
}

using Kernel = void (*)(const float*, const float*, int64_t, int64_t, int64_t, float*, int64_t);
constexpr Kernel kByRows[] = {nullptr, rows_of<1, 8>, rows_of<2, 4>, rows_of<3, 3>, rows_of<4, 2>, rows_of<5, 2>, rows_of<6, 2>};

void weigh(const float* p, int64_t rows, const float* v, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) noexcept {
  for (int64_t r = 0; r < rows; r += 6) kByRows[rows - r < 6 ? rows - r : 6](p + r * kKeys, v, ldv, keys, n, o + r * ldo, ldo);
}

}  // namespace

const Table kAvx2 = {weigh};

}  // namespace statera::kernels::attn
