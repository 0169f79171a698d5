// The specification of the int8 kernels.
#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::i8gemm {
namespace {

void dot(const int8_t* x, int64_t ldx, int rows, int64_t k, const uint8_t* codes, int64_t block_bytes, int blocks, int32_t* sums) noexcept {
  for (int r = 0; r < rows; ++r) {
    for (int b = 0; b < blocks; ++b) {
      uint32_t acc[kRowBlock] = {};
      const uint8_t* w = codes + b * block_bytes;
      for (int64_t i = 0; i < k; ++i)
        for (int row = 0; row < kRowBlock; ++row)
          acc[row] += static_cast<uint32_t>(x[r * ldx + i] * w[(i / 4 * kRowBlock + row) * 4 + i % 4]);
      for (int row = 0; row < kRowBlock; ++row) sums[(r * blocks + b) * kRowBlock + row] = static_cast<int32_t>(acc[row]);
    }
  }
}

int32_t sum(const int8_t* x, int64_t k) noexcept {
  uint32_t s = 0;
  for (int64_t i = 0; i < k; ++i) s += static_cast<uint32_t>(x[i]);
  return static_cast<int32_t>(s);
}

float max_abs(const float* x, int64_t k) noexcept {
  float most = 0;
  for (int64_t i = 0; i < k; ++i) {
    const float a = __builtin_fabsf(x[i]);
    if (a > most) most = a;
  }
  return most;
}

void quantize(const float* x, int64_t k, float scale, int32_t zero, int32_t low, int32_t high, int8_t* q) noexcept {
  for (int64_t i = 0; i < k; ++i) {
    float v = x[i] / scale;
    // within +-512 first: the conversion of a float outside int32 would be undefined, and the clamp is narrower anyway
    v = v < -512.0f ? -512.0f : v > 512.0f ? 512.0f : v;
    v = (v + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds to an integer, halves to even
    const int32_t t = static_cast<int32_t>(v) + zero;
    q[i] = static_cast<int8_t>(t < low ? low : t > high ? high : t);
  }
}

}  // namespace

const Table kScalar = {4, dot, sum, max_abs, quantize};

}  // namespace statera::kernels::i8gemm
