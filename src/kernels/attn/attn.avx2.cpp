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
  constexpr int kAhead = 32 / kSize<F>;  // keys
  __m256 acc[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) acc[r][c] = _mm256_loadu_ps(o + r * ldo + 8 * c);
  for (int64_t j = 0; j < keys; ++j) {
    __m256 row[C];
    _mm_prefetch(static_cast<const char*>(v) + (at + (j + kAhead) * ldv) * kSize<F>, _MM_HINT_T0);
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

}  // namespace

const Table kAvx2 = {weigh, times, widen, halve};

}  // namespace statera::kernels::attn
