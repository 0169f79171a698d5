// A tile in vectors of eight rows of W, once for AVX2 and AVX-VNNI: sums of segments meet in f32, times both scales. How the sums of a
// segment come about is the ISA file's, which includes this.
#pragma once

#include <immintrin.h>

#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::i8gemm {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

STATERA_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
STATERA_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

STATERA_INLINE int32_t four(const int8_t* x) {
  int32_t v;
  __builtin_memcpy(&v, x, 4);
  return v;
}

// Up to R rows of x at once. products(w, codes, q, step, rows, k, sums): sums[r][0..16) = codes * x over k, where four k of x lie `step`
// bytes after the four before.
template <int R, auto products>
void micro_of(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) {
  alignas(32) int32_t sums[R][kRowBlock];
  const int turns = (x.rows + R - 1) / R, share = (x.rows + turns - 1) / turns;
  for (int r0 = 0; r0 < x.rows; r0 += share)
    for (int b = 0; b < w.blocks; ++b) {
      const int rows = x.rows - r0 < share ? x.rows - r0 : share;
      __m256 total[R][2];
      for (int r = 0; r < rows; ++r)
        for (int h = 0; h < 2; ++h) total[r][h] = _mm256_loadu_ps(init + (r0 + r) * ld_init + b * kRowBlock + 8 * h);
      for (int64_t k = 0, s = 0; k < w.k; k += w.segment, ++s) {
        const int64_t count = w.k - k < w.segment ? w.k - k : w.segment, at = (s * kBlocks + b) * kRowBlock;
        products(w, w.codes + b * w.block_bytes + k * kRowBlock, x.q + k * x.rows + 4 * r0, 4 * x.rows, rows, count, sums);
        for (int r = 0; r < rows; ++r) {
          const int64_t from = (r0 + r) * x.segments + s;
          for (int h = 0; h < 2; ++h) {
            const __m256i zero = w.zero ? load(w.zero + at + 8 * h) : _mm256_set1_epi32(w.centre);
            const __m256i sum = _mm256_add_epi32(load(sums[r] + 8 * h), _mm256_mullo_epi32(zero, _mm256_set1_epi32(x.minus_sum[from])));
            const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(w.scale + at + 8 * h), _mm256_set1_ps(x.scale[from]));
            total[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, total[r][h]);
          }
        }
      }
      for (int r = 0; r < rows; ++r)
        for (int h = 0; h < 2; ++h) _mm256_storeu_ps(y + (r0 + r) * ldy + b * kRowBlock + 8 * h, total[r][h]);
    }
}

}  // namespace
}  // namespace statera::kernels::i8gemm
