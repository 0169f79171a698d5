// AVX-VNNI, for machines that have it without AVX-512: vpdpbusd adds four products of a code and x to an int32 lane without saturation,
// whatever the code's size. The rest is AVX2's. Specification: i8gemm.scalar.cpp.
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

#include "kernels/i8gemm/vectors256.h"

namespace statera::kernels::i8gemm {
namespace {

constexpr int kRows = 6;  // of x at once: 12 sums, two vectors of codes and one of x in 16 registers

// sums[c * R + r][0..16) = codes * x over k for R rows in C chains each, which together hide the instruction's latency. A function of its
// own that leaves them apart, or GCC keeps sums in memory.
template <int R, int C>
__attribute__((noinline)) void dots(const uint8_t* codes, const int8_t* x, int64_t step, int64_t k, int32_t (*sums)[kRowBlock]) {
  static_assert(R * C <= kRows);
  __m256i acc[C][R][2];
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) acc[c][r][0] = acc[c][r][1] = _mm256_setzero_si256();
  for (const uint8_t* end = codes + k * kRowBlock; codes != end; codes += 64 * C, x += step * C) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const __m256i low = load(codes + 64 * c), high = load(codes + 64 * c + 32);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const __m256i xr = _mm256_set1_epi32(four(x + step * c + 4 * r));
        acc[c][r][0] = _mm256_dpbusd_epi32(acc[c][r][0], low, xr);
        acc[c][r][1] = _mm256_dpbusd_epi32(acc[c][r][1], high, xr);
      }
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) store(sums[c * R + r] + 8 * h, acc[c][r][h]);
}

// sums[r][0..16) = codes * x over k, where four k of x lie `step` bytes after the four before. k is a multiple of 32, so that chains are equally
// long.
STATERA_INLINE void products(const uint8_t* codes, const int8_t* x, int64_t step, int rows, int64_t k, int32_t (*sums)[kRowBlock]) {
  struct ByRows {
    void (*dots)(const uint8_t*, const int8_t*, int64_t, int64_t, int32_t (*)[kRowBlock]);
    int chains;
  };
  static constexpr ByRows kByRows[] = {{nullptr, 0},    {dots<1, 4>, 4}, {dots<2, 2>, 2}, {dots<3, 2>, 2},
                                       {dots<4, 1>, 1}, {dots<5, 1>, 1}, {dots<6, 1>, 1}};
  kByRows[rows].dots(codes, x, step, k, sums);
  for (int i = rows; i < rows * kByRows[rows].chains; ++i)
    for (int h = 0; h < 2; ++h) store(sums[i % rows] + 8 * h, _mm256_add_epi32(load(sums[i % rows] + 8 * h), load(sums[i] + 8 * h)));
}

// Sums of segments meet in f32, times both scales.
void micro(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept {
  alignas(32) int32_t sums[kRows][kRowBlock];
  const int turns = (x.rows + kRows - 1) / kRows, share = (x.rows + turns - 1) / turns;
  for (int r0 = 0; r0 < x.rows; r0 += share)
    for (int b = 0; b < w.blocks; ++b) {
      const int rows = x.rows - r0 < share ? x.rows - r0 : share;
      __m256 total[kRows][2];
      for (int r = 0; r < rows; ++r)
        for (int h = 0; h < 2; ++h) total[r][h] = _mm256_loadu_ps(init + (r0 + r) * ld_init + b * kRowBlock + 8 * h);
      for (int64_t k = 0, s = 0; k < w.k; k += w.segment, ++s) {
        const int64_t count = w.k - k < w.segment ? w.k - k : w.segment, at = (s * kBlocks + b) * kRowBlock;
        products(w.codes + b * w.block_bytes + k * kRowBlock, x.q + k * x.rows + 4 * r0, 4 * x.rows, rows, count, sums);
        for (int r = 0; r < rows; ++r) {
          const int64_t from = s * x.rows + r0 + r;
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

const Micro kAvxVnni = {4, kRows, micro, nullptr, nullptr};

}  // namespace statera::kernels::i8gemm
