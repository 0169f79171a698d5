// AVX-VNNI, for machines that have it without AVX-512: vpdpbusd adds four products of a code and x to an int32 lane without saturation,
// whatever the code's size. The rest is AVX2's. Specification: i8gemm.scalar.cpp.
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

#include "kernels/i8gemm/micro256.h"

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

// k is a multiple of 32, so that chains are equally long.
STATERA_INLINE void products(const Strip&, const uint8_t* codes, const int8_t* x, int64_t step, int rows, int64_t k,
                             int32_t (*sums)[kRowBlock]) {
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

void micro(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept {
  micro_of<kRows, products>(w, x, init, ld_init, y, ldy);
}

}  // namespace

const Micro kAvxVnni = {4, kRows, micro, nullptr, nullptr};

}  // namespace statera::kernels::i8gemm
