// Vectors of 8. The loops are body.h; specification: elementwise.scalar.cpp.
#include "kernels/elementwise/elementwise.h"

#include <immintrin.h>

namespace statera::kernels::elementwise {
namespace {

struct V {
  using R = __m256;
  static constexpr int64_t W = 8;
  static __m256i mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static R load(const float* p) { return _mm256_loadu_ps(p); }
  static R load(const float* p, int64_t n) { return _mm256_maskload_ps(p, mask(n)); }
  static void store(float* p, R x) { _mm256_storeu_ps(p, x); }
  static void store(float* p, R x, int64_t n) { _mm256_maskstore_ps(p, mask(n), x); }
  static R first(R x, int64_t n) { return _mm256_and_ps(x, _mm256_castsi256_ps(mask(n))); }
  template <Type T>
  static R load_as(const void* data, int64_t at, int64_t n) {
    if constexpr (T == Type::f32) return n == W ? load(static_cast<const float*>(data) + at) : load(static_cast<const float*>(data) + at, n);
    const uint16_t* from = static_cast<const uint16_t*>(data) + at;
    uint16_t tail[8] = {};
    if (n < W) {
      for (int64_t i = 0; i < n; ++i) tail[i] = from[i];
      from = tail;
    }
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    if constexpr (T == Type::f16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static R set(float x) { return _mm256_set1_ps(x); }
  static R add(R a, R b) { return _mm256_add_ps(a, b); }
  static R sub(R a, R b) { return _mm256_sub_ps(a, b); }
  static R mul(R a, R b) { return _mm256_mul_ps(a, b); }
  static R div(R a, R b) { return _mm256_div_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
  static R fnma(R a, R b, R c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a b
  static R max(R a, R b) { return _mm256_max_ps(a, b); }              // b where one is NaN
  static R min(R a, R b) { return _mm256_min_ps(a, b); }
  static R round(R x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static R unless_below(R x, R least, R y) { return _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_NLT_UQ), y); }  // y, or 0; NaN is not below
  // In two steps, each a normal number, so that the product may overflow to infinity (n from -126 to 128).
  static R times_power_of_two(R x, R n) {
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    const __m256i low = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i high = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return mul(mul(x, _mm256_castsi256_ps(low)), _mm256_castsi256_ps(high));
  }
  static float sum(R x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float most(R x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }
  static float lane(R x) { return _mm256_cvtss_f32(x); }
};

}  // namespace
}  // namespace statera::kernels::elementwise

#include "kernels/elementwise/body.h"

namespace statera::kernels::elementwise {

const Table kAvx2 = {rms_norm, layer_norm, activate, add, add_bias, rope, softmax, scale_rows};

}  // namespace statera::kernels::elementwise
