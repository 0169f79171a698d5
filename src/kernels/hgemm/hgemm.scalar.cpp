// The specification.
#include "kernels/hgemm/hgemm.h"

namespace statera::kernels::hgemm {
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

float weight(const Rows& w, int64_t row, int64_t k) {
  const int64_t at = row * w.ldw + k;
  if (w.type == Type::f32) return static_cast<const float*>(w.data)[at];
  if (w.type == Type::i8) return static_cast<const int8_t*>(w.data)[at];
  const uint32_t h = static_cast<const uint16_t*>(w.data)[at];
  return w.type == Type::f16 ? half_value(h) : __builtin_bit_cast(float, h << 16);
}

void decode(const float* x, int64_t ldx, int m, const Rows& w, int64_t k, float* y) noexcept {
  for (int row = 0; row < w.rows; ++row) {
    float sums[kMaxDecodeRows] = {};
    for (int64_t i = 0; i < k; ++i) {
      const float v = weight(w, row, i);
      for (int j = 0; j < m; ++j) sums[j] += x[j * ldx + i] * v;
    }
    for (int j = 0; j < m; ++j) y[j * kRowBlock + row] = sums[j];
  }
}

void convert(const Rows& w, int64_t k_begin, int64_t count, float* out) noexcept {
  for (int64_t i = 0; i < count; ++i)
    for (int row = 0; row < kRowBlock; ++row) *out++ = row < w.rows ? weight(w, row, k_begin + i) : 0.0f;
}

void pairs(const Rows& w, int64_t k_begin, int64_t count, uint32_t* out) noexcept {
  const auto* stored = static_cast<const uint16_t*>(w.data);
  const auto at = [&](int row, int64_t i) -> uint32_t { return row < w.rows && i < count ? stored[row * w.ldw + k_begin + i] : 0; };
  for (int64_t i = 0; i < kRowBlock; ++i)
    for (int row = 0; row < kRowBlock; ++row) *out++ = at(row, 2 * i) | at(row, 2 * i + 1) << 16;
}

}  // namespace

const Table kScalar = {decode, convert, pairs};

}  // namespace statera::kernels::hgemm
