// R rows by up to C vectors of 8 columns in registers, down the keys. Specification: attn.scalar.cpp.
#include "kernels/attn/attn.h"

#include <immintrin.h>

namespace statera::kernels::attn {
namespace {

template <Form F>
constexpr int kSize = F == Form::f32 ? 4 : F == Form::f16 ? 2 : 1;

template <Form F>
inline __attribute__((always_inline)) __m256 load(const void* v, int64_t at) {
  if constexpr (F == Form::f32) return _mm256_loadu_ps(static_cast<const float*>(v) + at);
  if constexpr (F == Form::f16) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(v) + at)));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const int8_t*>(v) + at))));
}

template <Form F>
inline float value(const void* v, int64_t at) {
  if constexpr (F == Form::f32) return static_cast<const float*>(v)[at];
  if constexpr (F == Form::f16) return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<const uint16_t*>(v)[at])));
  return static_cast<const int8_t*>(v)[at];
}

// Columns from `at` on.
template <Form F, int R, int C>
void columns(const float* p, const void* v, int64_t at, int64_t ldv, int64_t keys, float* o, int64_t ldo) {
  constexpr int kAhead = 128 / kSize<F>;  // keys
  __m256 acc[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) acc[r][c] = _mm256_loadu_ps(o + r * ldo + 8 * c);
  for (int64_t j = 0; j < keys; ++j) {
    __m256 row[C];
    _mm_prefetch(static_cast<const char*>(v) + (at + (j + kAhead) * ldv) * kSize<F>, _MM_HINT_T1);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) row[c] = load<F>(v, at + j * ldv + 8 * c);
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

template <Form F, int R, int C>
void rows_of(const float* p, const void* v, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) {
  int64_t c = 0;
  for (; c + 8 * C <= n; c += 8 * C) columns<F, R, C>(p, v, c, ldv, keys, o + c, ldo);
  for (; c + 8 <= n; c += 8) columns<F, R, 1>(p, v, c, ldv, keys, o + c, ldo);
  for (; c < n; ++c)
    for (int64_t r = 0; r < R; ++r)
      for (int64_t j = 0; j < keys; ++j) o[r * ldo + c] += p[r * kKeys + j] * value<F>(v, j * ldv + c);
}

using Kernel = void (*)(const float*, const void*, int64_t, int64_t, int64_t, float*, int64_t);
template <Form F>
constexpr Kernel kByRows[] = {nullptr,          rows_of<F, 1, 8>, rows_of<F, 2, 4>, rows_of<F, 3, 3>,
                              rows_of<F, 4, 2>, rows_of<F, 5, 2>, rows_of<F, 6, 2>};

void weigh(const float* p, int64_t rows, const void* v, Form form, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) noexcept {
  const Kernel* by_rows = form == Form::f32 ? kByRows<Form::f32> : form == Form::f16 ? kByRows<Form::f16> : kByRows<Form::i8>;
  for (int64_t r = 0; r < rows; r += 6) by_rows[rows - r < 6 ? rows - r : 6](p + r * kKeys, v, ldv, keys, n, o + r * ldo, ldo);
}

void times(float* p, int64_t rows, const float* factor, int64_t count) noexcept {
  for (int64_t r = 0; r < rows; ++r) {
    float* row = p + r * kKeys;
    int64_t j = 0;
    for (; j + 8 <= count; j += 8) _mm256_storeu_ps(row + j, _mm256_mul_ps(_mm256_loadu_ps(row + j), _mm256_loadu_ps(factor + j)));
    for (; j < count; ++j) row[j] *= factor[j];
  }
}

template <Form F>
void widen_form(const void* from, int64_t n, float factor, float* to) {
  const __m256 f = _mm256_set1_ps(factor);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_mul_ps(load<F>(from, i), f));
  for (; i < n; ++i) to[i] = value<F>(from, i) * factor;
}

void widen(const void* from, Form form, int64_t n, float factor, float* to) noexcept {
  if (form == Form::f32) return widen_form<Form::f32>(from, n, factor, to);
  if (form == Form::f16) return widen_form<Form::f16>(from, n, factor, to);
  widen_form<Form::i8>(from, n, factor, to);
}

bool halve(const float* x, int64_t n, uint16_t* to) noexcept {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const __m256 sign = _mm256_set1_ps(-0.0f), infinite = _mm256_set1_ps(__builtin_inff()), beyond = _mm256_set1_ps(65520.0f);
  __m256 lost = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i), size = _mm256_andnot_ps(sign, v);
    lost = _mm256_or_ps(lost, _mm256_and_ps(_mm256_cmp_ps(size, beyond, _CMP_GE_OQ), _mm256_cmp_ps(size, infinite, _CMP_LT_OQ)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(v, kNearest));
  }
  bool fits = _mm256_movemask_ps(lost) == 0;
  for (; i < n; ++i) {
    const float size = __builtin_fabsf(x[i]);
    to[i] = static_cast<uint16_t>(_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(x[i]), kNearest), 0));
    if (size >= 65520.0f && size < __builtin_inff()) fits = false;
  }
  return fits;
}

// 2^x, x in [-126, 0].
inline __attribute__((always_inline)) __m256 power(__m256 x) {
  const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm256_sub_ps(x, whole);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(kExp2[3]), f, _mm256_set1_ps(kExp2[2]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2[1]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2[0]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(exponent));
}

// Up to eight elements from memory that has no more, the others `rest`.
inline __m256 some(const float* x, int64_t count, float rest) {
  alignas(32) float all[8] = {rest, rest, rest, rest, rest, rest, rest, rest};
  for (int64_t i = 0; i < count; ++i) all[i] = x[i];
  return _mm256_load_ps(all);
}
inline __m256 eight(const float* x, int64_t count, float rest) { return count >= 8 ? _mm256_loadu_ps(x) : some(x, count, rest); }

// Bits of magnitudes are ordered as these are, infinity and NaN above all.
int32_t weights(const float* s, int64_t n, int8_t* q, float* most) noexcept {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 top = _mm256_set1_ps(-__builtin_inff());
  __m256i size = _mm256_setzero_si256();
  for (int64_t j = 0; j < n; j += 8) {
    const __m256 x = eight(s + j, n - j, s[0]);
    top = _mm256_max_ps(top, x);
    size = _mm256_max_epi32(size, _mm256_castps_si256(_mm256_andnot_ps(sign, x)));
  }
  alignas(32) float tops[8];
  alignas(32) int32_t sizes[8];
  _mm256_store_ps(tops, top);
  _mm256_store_si256(reinterpret_cast<__m256i*>(sizes), size);
  bool finite = true;
  float highest = tops[0];
  for (int i = 0; i < 8; ++i) {
    finite = finite && sizes[i] < 0x7f800000;
    highest = tops[i] > highest ? tops[i] : highest;
  }
  *most = finite ? highest : __builtin_nanf("");
  const __m256 from = _mm256_set1_ps(*most), lowest = _mm256_set1_ps(-16.0f), factor = _mm256_set1_ps(finite ? 127.0f : 0.0f);
  __m256i sum = _mm256_setzero_si256();
  for (int64_t j = 0; j < n; j += 8) {
    const __m256 x = _mm256_max_ps(_mm256_sub_ps(eight(s + j, n - j, -__builtin_inff()), from), lowest);  // NaN gives the lowest, whose code is 0
    const __m256i codes = _mm256_cvtps_epi32(_mm256_mul_ps(power(x), factor));
    sum = _mm256_add_epi32(sum, codes);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
    alignas(16) int8_t bytes[16];
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm_packs_epi16(words, words));
    __builtin_memcpy(q + j, bytes, n - j < 8 ? static_cast<size_t>(n - j) : 8);
  }
  alignas(32) int32_t sums[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(sums), sum);
  int32_t all = 0;
  for (const int32_t v : sums) all += v;
  return all;
}

void exp2(float* x, int64_t n) noexcept {
  const __m256 lowest = _mm256_set1_ps(-126.0f);
  for (int64_t i = 0; i < n; i += 8) {
    alignas(32) float y[8];
    _mm256_store_ps(y, power(_mm256_max_ps(lowest, eight(x + i, n - i, 0.0f))));  // NaN stays: it is the second
    __builtin_memcpy(x + i, y, (n - i < 8 ? static_cast<size_t>(n - i) : 8) * sizeof(float));
  }
}

}  // namespace

const Table kAvx2 = {weigh, times, widen, halve, weights, exp2};

}  // namespace statera::kernels::attn
