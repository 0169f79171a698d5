// The specification of the product with the values and of the forms they are stored in.
#include "kernels/attn/attn.h"

namespace statera::kernels::attn {
namespace {

float half_value(uint32_t h) {
  const uint32_t exponent = h >> 10 & 31, fraction = h & 1023, sign = (h & 0x8000) << 16;
  if (exponent == 0) {
    const float v = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -v : v;
  }
  if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7f800000u | fraction << 13);
  return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t half_of(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x), size = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
  if (size > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (size >> 13 & 0x3ff));  // NaN, quiet, as the instruction makes it
  if (size >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);                        // 65520 and above
  if (size < 0x38800000) {  // below 2^-14: in units of 2^-24, rounded by adding 0.5, whose own unit that is
    const uint32_t units = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, size) + 0.5f) - 0x3f000000;
    return static_cast<uint16_t>(sign | units);
  }
  return static_cast<uint16_t>(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
}

float value(const void* v, Form form, int64_t at) {
  if (form == Form::i8) return static_cast<const int8_t*>(v)[at];
  return form == Form::f16 ? half_value(static_cast<const uint16_t*>(v)[at]) : static_cast<const float*>(v)[at];
}

void weigh(const float* p, int64_t rows, const void* v, Form form, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) noexcept {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < keys; ++j)
      for (int64_t c = 0; c < n; ++c) o[r * ldo + c] += p[r * kKeys + j] * value(v, form, j * ldv + c);
}

void times(float* p, int64_t rows, const float* factor, int64_t count) noexcept {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < count; ++j) p[r * kKeys + j] *= factor[j];
}

void widen(const void* from, Form form, int64_t n, float factor, float* to) noexcept {
  for (int64_t i = 0; i < n; ++i) to[i] = value(from, form, i) * factor;
}

bool halve(const float* x, int64_t n, uint16_t* to) noexcept {
  bool fits = true;
  for (int64_t i = 0; i < n; ++i) {
    to[i] = half_of(x[i]);
    if ((to[i] & 0x7fff) == 0x7c00 && __builtin_fabsf(x[i]) < __builtin_inff()) fits = false;
  }
  return fits;
}

// 2^x, x in [-126, 0]. The products and sums of a polynomial's step are rounded once, as an FMA rounds them.
float power(float x) {
  const float whole = (x + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds to an integer, halves to even
  const float f = x - whole;
  float p = kExp2[3];
  for (int i = 2; i >= 0; --i) p = __builtin_fmaf(p, f, kExp2[i]);
  p = __builtin_fmaf(p, f, 1.0f);
  return p * __builtin_bit_cast(float, (static_cast<int32_t>(whole) + 127) << 23);
}

int32_t weights(const float* s, int64_t n, int8_t* q, float* most) noexcept {
  float top = -__builtin_inff();
  bool finite = true;
  for (int64_t j = 0; j < n; ++j) {
    if (!(__builtin_fabsf(s[j]) < __builtin_inff())) finite = false;
    if (s[j] > top) top = s[j];
  }
  *most = finite ? top : __builtin_nanf("");
  int32_t sum = 0;
  for (int64_t j = 0; j < n; ++j) {
    const float x = s[j] - top;
    q[j] = finite ? static_cast<int8_t>((power(x < -16.0f ? -16.0f : x) * 127.0f + 12582912.0f) - 12582912.0f) : int8_t{0};
    sum += q[j];
  }
  return sum;
}

void exp2(float* x, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] != x[i] ? x[i] : power(x[i] < -126.0f ? -126.0f : x[i]);
}

}  // namespace

const Table kScalar = {weigh, times, widen, halve, weights, exp2};

}  // namespace statera::kernels::attn
