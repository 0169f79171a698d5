// Vectors of 16. The loops are body.h; specification: elementwise.scalar.cpp.
#include "kernels/elementwise/elementwise.h"

#include <immintrin.h>

namespace statera::kernels::elementwise {
namespace {

struct V {
  using R = __m512;
  static constexpr int64_t W = 16;
  static __mmask16 mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static R load(const float* p) { return _mm512_loadu_ps(p); }
  static R load(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static void store(float* p, R x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, R x, int64_t n) { _mm512_mask_storeu_ps(p, mask(n), x); }
  static R first(R x, int64_t n) { return _mm512_maskz_mov_ps(mask(n), x); }
  template <Type T>
  static R load_as(const void* data, int64_t at, int64_t n) {
    if constexpr (T == Type::f32) return _mm512_maskz_loadu_ps(mask(n), static_cast<const float*>(data) + at);
    const __m256i half = _mm256_maskz_loadu_epi16(mask(n), static_cast<const uint16_t*>(data) + at);
    if constexpr (T == Type::f16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static R set(float x) { return _mm512_set1_ps(x); }
  static R add(R a, R b) { return _mm512_add_ps(a, b); }
  static R sub(R a, R b) { return _mm512_sub_ps(a, b); }
  static R mul(R a, R b) { return _mm512_mul_ps(a, b); }
  static R div(R a, R b) { return _mm512_div_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
  static R fnma(R a, R b, R c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
  static R max(R a, R b) { return _mm512_max_ps(a, b); }              // b where one is NaN
  static R min(R a, R b) { return _mm512_min_ps(a, b); }
  static R round(R x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static R unless_below(R x, R least, R y) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ), y); }  // y, or 0; NaN is not below
  static R times_power_of_two(R x, R n) { return _mm512_scalef_ps(x, n); }
  static float sum(R x) { return _mm512_reduce_add_ps(x); }
  static float most(R x) { return _mm512_reduce_max_ps(x); }
  static float lane(R x) { return _mm512_cvtss_f32(x); }
};

}  // namespace
}  // namespace statera::kernels::elementwise

#include "kernels/elementwise/body.h"

namespace statera::kernels::elementwise {

const Table kAvx512 = {rms_norm, layer_norm, activate, add, add_bias, rope, softmax, scale_rows};

}  // namespace statera::kernels::elementwise
