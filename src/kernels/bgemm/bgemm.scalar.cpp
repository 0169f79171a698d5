// The specification.
#include "kernels/bgemm/bgemm.h"

namespace statera::kernels::bgemm {
namespace {

// The upper half of a float's bits after rounding; NaN stays one.
uint32_t bf16(float x) {
  union {
    float f;
    uint32_t u;
  } v{x};
  if ((v.u & 0x7fffffff) > 0x7f800000) return v.u >> 16 | 0x40;
  return (v.u + 0x7fff + (v.u >> 16 & 1)) >> 16;
}

float number(uint32_t half) {
  union {
    uint32_t u;
    float f;
  } v{half << 16};
  return v.f;
}

void row(const float* x, int64_t k, uint32_t* out) noexcept {
  for (int64_t i = 0; i < k; i += 2) out[i / 2] = bf16(x[i]) | (i + 1 < k ? bf16(x[i + 1]) << 16 : 0);
}

void columns(const float* even, const float* odd, int64_t count, uint32_t* out) noexcept {
  for (int64_t j = 0; j < count; ++j) out[j] = bf16(even[j]) | (odd ? bf16(odd[j]) << 16 : 0);
}

void turn(const uint32_t* in, int64_t ldi, uint32_t* out, int64_t ldo) noexcept {
  for (int64_t i = 0; i < 16; ++i)
    for (int64_t j = 0; j < 16; ++j) out[j * ldo + i] = in[i * ldi + j];
}

void micro(const uint32_t* a, int rows, const uint32_t* b, int64_t pairs, bool add, float* y, int64_t ldy) noexcept {
  for (int r = 0; r < rows; ++r)
    for (int64_t j = 0; j < kColumns; ++j) {
      float sum = 0;
      for (int64_t i = 0; i < pairs; ++i) {
        const uint32_t u = a[r * kDepth / 2 + i], v = b[i * kColumns + j];
        sum += number(u >> 16) * number(v >> 16);
        sum += number(u & 0xffff) * number(v & 0xffff);
      }
      y[r * ldy + j] = add ? y[r * ldy + j] + sum : sum;
    }
}

}  // namespace

const Table kScalar = {row, columns, turn, {12, micro, nullptr, nullptr}};

}  // namespace statera::kernels::bgemm
