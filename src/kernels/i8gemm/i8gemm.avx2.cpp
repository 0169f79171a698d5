// Bytes widened to 16 bits, then multiply-add of pairs into int32: exact, unlike the saturating byte instruction. A register
// holds four rows of four k, so each row has two partial sums, joined at the end. Specification: i8gemm.scalar.cpp.
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

namespace statera::kernels::i8gemm {
namespace {

constexpr int kAhead = 8192;  // bytes of codes to prefetch before use

// Four bytes of x as four 16-bit lanes, repeated four times.
inline __attribute__((always_inline)) __m256i four(const int8_t* x) {
  int32_t v;
  __builtin_memcpy(&v, x, 4);
  return _mm256_cvtepi8_epi16(_mm_set1_epi32(v));
}

inline __attribute__((always_inline)) __m256i rows4(const uint8_t* codes) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}

template <int R>
void dot_rows(const int8_t* x, int64_t ldx, int64_t k, const uint8_t* codes, int32_t* sums, int64_t ld_sums) {
  __m256i acc[R][4];
  for (int r = 0; r < R; ++r)
    for (int q = 0; q < 4; ++q) acc[r][q] = _mm256_setzero_si256();
  auto step = [&](int64_t i, const __m256i(&xr)[R]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const __m256i w = rows4(codes + i * kRowBlock + 16 * q);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][q] = _mm256_add_epi32(acc[r][q], _mm256_madd_epi16(w, xr[r]));
    }
  };
  int64_t i = 0;
  __m256i xr[R];
  for (; i + 4 <= k; i += 4) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) xr[r] = four(x + r * ldx + i);
    _mm_prefetch(reinterpret_cast<const char*>(codes + i * kRowBlock) + kAhead, _MM_HINT_T0);
    step(i, xr);
  }
  if (i < k) {
    for (int r = 0; r < R; ++r) {
      int8_t tail[4] = {};
      for (int64_t j = 0; i + j < k; ++j) tail[j] = x[r * ldx + i + j];
      xr[r] = four(tail);
    }
    step(i, xr);
  }
  for (int r = 0; r < R; ++r)
    for (int q = 0; q < 4; q += 2) {  // lanes after hadd: rows 0 1 4 5 | 2 3 6 7 of these eight
      const __m256i pairs = _mm256_hadd_epi32(acc[r][q], acc[r][q + 1]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * ld_sums + 4 * q), _mm256_permute4x64_epi64(pairs, _MM_SHUFFLE(3, 1, 2, 0)));
    }
}

void dot(const int8_t* x, int64_t ldx, int rows, int64_t k, const uint8_t* codes, int64_t block_bytes, int blocks, int32_t* sums) noexcept {
  using Dot = void (*)(const int8_t*, int64_t, int64_t, const uint8_t*, int32_t*, int64_t);
  static constexpr Dot kByRows[] = {nullptr, dot_rows<1>, dot_rows<2>, dot_rows<3>};
  for (int b = 0; b < blocks; ++b) kByRows[rows](x, ldx, k, codes + b * block_bytes, sums + b * kRowBlock, kRowBlock * blocks);
}

int32_t sum(const int8_t* x, int64_t k) noexcept {
  __m256i wide = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    const __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i)));
    wide = _mm256_add_epi32(wide, _mm256_madd_epi16(v, _mm256_set1_epi16(1)));
  }
  uint32_t lanes[8], s = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), wide);
  for (uint32_t lane : lanes) s += lane;
  for (; i < k; ++i) s += static_cast<uint32_t>(x[i]);
  return static_cast<int32_t>(s);
}

float max_abs(const float* x, int64_t k) noexcept {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 wide = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) wide = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)), wide);
  float lanes[8], most = 0;
  _mm256_storeu_ps(lanes, wide);
  for (float lane : lanes) most = lane > most ? lane : most;
  for (; i < k; ++i) most = __builtin_fabsf(x[i]) > most ? __builtin_fabsf(x[i]) : most;
  return most;
}

inline __m256i quantize8(const float* x, float scale, int32_t zero, int32_t low, int32_t high) {
  const __m256 v = _mm256_div_ps(_mm256_loadu_ps(x), _mm256_set1_ps(scale));
  const __m256 near = _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(-512.0f)), _mm256_set1_ps(512.0f));
  const __m256 whole = _mm256_round_ps(near, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256i t = _mm256_add_epi32(_mm256_cvttps_epi32(whole), _mm256_set1_epi32(zero));
  return _mm256_min_epi32(_mm256_max_epi32(t, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
}

inline void store8(__m256i t, int8_t* q) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(q), _mm_packs_epi16(words, words));
}

void quantize(const float* x, int64_t k, float scale, int32_t zero, int32_t low, int32_t high, int8_t* q) noexcept {
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) store8(quantize8(x + i, scale, zero, low, high), q + i);
  if (i == k) return;
  float tail[8] = {};
  int8_t out[8];
  for (int64_t j = 0; i + j < k; ++j) tail[j] = x[i + j];
  store8(quantize8(tail, scale, zero, low, high), out);
  for (int64_t j = 0; i + j < k; ++j) q[i + j] = out[j];
}

}  // namespace

const Table kAvx2 = {3, dot, sum, max_abs, quantize};

}  // namespace statera::kernels::i8gemm
