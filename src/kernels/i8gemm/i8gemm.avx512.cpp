// VNNI: four products of unsigned (w + 128) and signed x bytes summed into int32 per lane, without saturation; the 16 lanes
// are the rows of a block. Specification: i8gemm.scalar.cpp.
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

namespace statera::kernels::i8gemm {
namespace {

constexpr int kAhead = 8192;  // bytes of codes to prefetch before use

inline __attribute__((always_inline)) __m512i four(const int8_t* x) {
  int32_t v;
  __builtin_memcpy(&v, x, 4);
  return _mm512_set1_epi32(v);
}

// C independent chains of k per sum: with few rows the latency of one would show.
template <int R, int B, int C>
void dot_rows(const int8_t* x, int64_t ldx, int64_t k, const uint8_t* codes, int64_t block_bytes, int32_t* sums) {
  __m512i acc[C][R][B];
  for (int c = 0; c < C; ++c)
    for (int r = 0; r < R; ++r)
      for (int b = 0; b < B; ++b) acc[c][r][b] = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 4 * C <= k; i += 4 * C)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      __m512i w[B];
#pragma GCC unroll 2
      for (int b = 0; b < B; ++b) {
        const uint8_t* at = codes + b * block_bytes + (i + 4 * c) * kRowBlock;
        w[b] = _mm512_loadu_si512(at);
        if constexpr (R <= 8) _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T0);  // decoding reads from memory
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const __m512i xr = four(x + r * ldx + i + 4 * c);
#pragma GCC unroll 2
        for (int b = 0; b < B; ++b) acc[c][r][b] = _mm512_dpbusd_epi32(acc[c][r][b], w[b], xr);
      }
    }
  for (; i < k; i += 4)
    for (int r = 0; r < R; ++r) {
      int8_t tail[4] = {};
      for (int64_t j = 0; j < 4 && i + j < k; ++j) tail[j] = x[r * ldx + i + j];
      for (int b = 0; b < B; ++b)
        acc[0][r][b] = _mm512_dpbusd_epi32(acc[0][r][b], _mm512_loadu_si512(codes + b * block_bytes + i * kRowBlock), four(tail));
    }
  for (int r = 0; r < R; ++r)
    for (int b = 0; b < B; ++b) {
      for (int c = 1; c < C; ++c) acc[0][r][b] = _mm512_add_epi32(acc[0][r][b], acc[c][r][b]);
      _mm512_storeu_si512(sums + (r * B + b) * kRowBlock, acc[0][r][b]);
    }
}

using Dot = void (*)(const int8_t*, int64_t, int64_t, const uint8_t*, int64_t, int32_t*);
template <int B>
constexpr Dot kByRows[] = {
    nullptr,           dot_rows<1, B, 4>, dot_rows<2, B, 2>, dot_rows<3, B, 2>,  dot_rows<4, B, 2>,  dot_rows<5, B, 1>, dot_rows<6, B, 1>,
    dot_rows<7, B, 1>, dot_rows<8, B, 1>, dot_rows<9, B, 1>, dot_rows<10, B, 1>, dot_rows<11, B, 1>, dot_rows<12, B, 1>};

void dot(const int8_t* x, int64_t ldx, int rows, int64_t k, const uint8_t* codes, int64_t block_bytes, int blocks, int32_t* sums) noexcept {
  (blocks == 2 ? kByRows<2> : kByRows<1>)[rows](x, ldx, k, codes, block_bytes, sums);
}

int32_t sum(const int8_t* x, int64_t k) noexcept {
  __m512i s = _mm512_setzero_si512();
  for (int64_t i = 0; i < k; i += 64) {
    const __mmask64 mask = k - i >= 64 ? ~0ull : (1ull << (k - i)) - 1;
    s = _mm512_dpbusd_epi32(s, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(mask, x + i));
  }
  return _mm512_reduce_add_epi32(s);
}

inline __mmask16 first(int64_t count) { return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }

float max_abs(const float* x, int64_t k) noexcept {
  __m512 most = _mm512_setzero_ps();
  for (int64_t i = 0; i < k; i += 16) most = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(first(k - i), x + i)), most);
  return _mm512_reduce_max_ps(most);
}

void quantize(const float* x, int64_t k, float scale, int32_t zero, int32_t low, int32_t high, int8_t* q) noexcept {
  const __m512 s = _mm512_set1_ps(scale), limit = _mm512_set1_ps(512.0f), floor = _mm512_set1_ps(-512.0f);
  for (int64_t i = 0; i < k; i += 16) {
    const __mmask16 mask = first(k - i);
    const __m512 v = _mm512_min_ps(_mm512_max_ps(_mm512_div_ps(_mm512_maskz_loadu_ps(mask, x + i), s), floor), limit);
    __m512i t = _mm512_add_epi32(_mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), _mm512_set1_epi32(zero));
    t = _mm512_min_epi32(_mm512_max_epi32(t, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
    _mm512_mask_cvtepi32_storeu_epi8(q + i, mask, t);
  }
}

}  // namespace

const Table kAvx512 = {12, dot, sum, max_abs, quantize};

}  // namespace statera::kernels::i8gemm
