// R rows by up to C vectors of 16 columns in registers, down the keys. Specification: attn.scalar.cpp.
#include "kernels/attn/attn.h"

#include <immintrin.h>

namespace statera::kernels::attn {
namespace {

inline __attribute__((always_inline)) __mmask16 first(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

template <Form F>
constexpr int kSize = F == Form::f32 ? 4 : F == Form::f16 ? 2 : 1;

template <Form F>
inline __attribute__((always_inline)) __m512 load(const void* v, int64_t at, __mmask16 mask) {
  if constexpr (F == Form::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(v) + at);
  if constexpr (F == Form::f16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(v) + at));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, static_cast<const int8_t*>(v) + at)));
}

// n <= 16 C columns from `at` on, `last` of the last vector.
template <Form F, int R, int C>
void columns(const float* p, const void* v, int64_t at, int64_t ldv, int64_t keys, __mmask16 last, float* o, int64_t ldo) {
  constexpr int kAhead = 128 / kSize<F>;  // keys
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
      row[c] = load<F>(v, at + j * ldv + 16 * c, mask[c]);
      if (16 * c * kSize<F> % 64 == 0) _mm_prefetch(static_cast<const char*>(v) + (at + (j + kAhead) * ldv + 16 * c) * kSize<F>, _MM_HINT_T1);
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

template <Form F, int R, int C>
void rows_of(const float* p, const void* v, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) {
  int64_t c = 0;
  for (; c + 16 * C <= n; c += 16 * C) columns<F, R, C>(p, v, c, ldv, keys, 0xffff, o + c, ldo);
  for (; c < n; c += 16) columns<F, R, 1>(p, v, c, ldv, keys, first(n - c), o + c, ldo);
}

using Kernel = void (*)(const float*, const void*, int64_t, int64_t, int64_t, float*, int64_t);
template <Form F>
constexpr Kernel kByRows[] = {nullptr,          rows_of<F, 1, 8>, rows_of<F, 2, 8>, rows_of<F, 3, 4>, rows_of<F, 4, 4>,
                              rows_of<F, 5, 4>, rows_of<F, 6, 4>, rows_of<F, 7, 2>, rows_of<F, 8, 2>};

void weigh(const float* p, int64_t rows, const void* v, Form form, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) noexcept {
  const Kernel* by_rows = form == Form::f32 ? kByRows<Form::f32> : form == Form::f16 ? kByRows<Form::f16> : kByRows<Form::i8>;
  for (int64_t r = 0; r < rows; r += 8) by_rows[rows - r < 8 ? rows - r : 8](p + r * kKeys, v, ldv, keys, n, o + r * ldo, ldo);
}

void times(float* p, int64_t rows, const float* factor, int64_t count) noexcept {
  for (int64_t j = 0; j < count; j += 16) {
    const __mmask16 mask = first(count - j);
    const __m512 f = _mm512_maskz_loadu_ps(mask, factor + j);
    for (int64_t r = 0; r < rows; ++r) {
      float* at = p + r * kKeys + j;
      _mm512_mask_storeu_ps(at, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, at), f));
    }
  }
}

template <Form F>
void widen_form(const void* from, int64_t n, float factor, float* to) {
  const __m512 f = _mm512_set1_ps(factor);
  for (int64_t i = 0; i < n; i += 16) _mm512_mask_storeu_ps(to + i, first(n - i), _mm512_mul_ps(load<F>(from, i, first(n - i)), f));
}

void widen(const void* from, Form form, int64_t n, float factor, float* to) noexcept {
  if (form == Form::f32) return widen_form<Form::f32>(from, n, factor, to);
  if (form == Form::f16) return widen_form<Form::f16>(from, n, factor, to);
  widen_form<Form::i8>(from, n, factor, to);
}

bool halve(const float* x, int64_t n, uint16_t* to) noexcept {
  const __m512 infinite = _mm512_set1_ps(__builtin_inff()), beyond = _mm512_set1_ps(65520.0f);
  __mmask16 lost = 0;
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first(n - i);
    const __m512 v = _mm512_maskz_loadu_ps(mask, x + i), size = _mm512_abs_ps(v);
    lost |= _mm512_cmp_ps_mask(size, beyond, _CMP_GE_OQ) & _mm512_cmp_ps_mask(size, infinite, _CMP_LT_OQ);
    _mm256_mask_storeu_epi16(to + i, mask, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  return lost == 0;
}

// 2^x, x in [-126, 0].
inline __attribute__((always_inline)) __m512 power(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(kExp2[3]), f, _mm512_set1_ps(kExp2[2]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2[1]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2[0]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

// Bits of magnitudes are ordered as these are, infinity and NaN above all.
int32_t weights(const float* s, int64_t n, int8_t* q, float* most) noexcept {
  const __m512 none = _mm512_set1_ps(-__builtin_inff());
  __m512 top = none;
  __m512i size = _mm512_setzero_si512();
  for (int64_t j = 0; j < n; j += 16) {
    const __m512 x = _mm512_mask_loadu_ps(none, first(n - j), s + j);
    top = _mm512_max_ps(top, x);
    size = _mm512_mask_max_epi32(size, first(n - j), size, _mm512_castps_si512(_mm512_abs_ps(x)));
  }
  const bool finite = _mm512_reduce_max_epi32(size) < 0x7f800000;
  *most = finite ? _mm512_reduce_max_ps(top) : __builtin_nanf("");
  const __m512 highest = _mm512_set1_ps(*most), lowest = _mm512_set1_ps(-16.0f), factor = _mm512_set1_ps(finite ? 127.0f : 0.0f);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t j = 0; j < n; j += 16) {
    const __mmask16 mask = first(n - j);
    const __m512 x = _mm512_max_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, s + j), highest), lowest);  // NaN gives the lowest
    const __m512i codes = _mm512_maskz_cvt_roundps_epi32(mask, _mm512_mul_ps(power(x), factor), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    sum = _mm512_add_epi32(sum, codes);
    _mm512_mask_cvtepi32_storeu_epi8(q + j, mask, codes);
  }
  return _mm512_reduce_add_epi32(sum);
}

void exp2(float* x, int64_t n) noexcept {
  const __m512 lowest = _mm512_set1_ps(-126.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first(n - i);
    _mm512_mask_storeu_ps(x + i, mask, power(_mm512_max_ps(lowest, _mm512_maskz_loadu_ps(mask, x + i))));  // NaN stays: it is the second
  }
}

}  // namespace

const Table kAvx512 = {weigh, times, widen, halve, weights, exp2};

}  // namespace statera::kernels::attn
