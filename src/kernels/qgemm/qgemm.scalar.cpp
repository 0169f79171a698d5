// The specification of the decode and dequantize kernels.
#include "kernels/qgemm/qgemm.h"

namespace statera::kernels::qgemm {
namespace {

float half_value(uint32_t h) {
  const uint32_t exponent = h >> 10 & 31, fraction = h & 1023, sign = (h & 0x8000) << 16;
  if (exponent == 0) {
    const float v = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -v : v;
  }
  return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
}

float scale_of(const Layout& l, const uint8_t* block, int64_t g, int row) {
  const uint8_t* scales = block + l.scale_offset;
  const int64_t slot = g * kRowBlock + row;
  if (l.scale == ScaleType::f32) return reinterpret_cast<const float*>(scales)[slot];
  const uint32_t h = reinterpret_cast<const uint16_t*>(scales)[slot];
  return l.scale == ScaleType::f16 ? half_value(h) : __builtin_bit_cast(float, h << 16);
}

// code - zero of element (k, row); the group of padding beyond K is the last one.
int field(const Layout& l, const uint8_t* block, int64_t k, int row) {
  const auto* words = reinterpret_cast<const uint32_t*>(block);
  const int64_t bit = k % 32 * l.bits;
  const uint32_t* at = words + (k / 32 * l.bits + bit / 32) * kRowBlock + row;
  uint32_t v = at[0] >> bit % 32;
  if (bit % 32 + l.bits > 32) v |= at[kRowBlock] << (32 - bit % 32);
  return static_cast<int>(v << (32 - l.bits)) >> (32 - l.bits);
}

int64_t group_of(const Layout& l, int64_t k) {
  const int64_t g = k / l.group;
  return g < l.groups ? g : l.groups - 1;
}

int zero_of(const Layout& l, const uint8_t* block, int64_t g, int row) {
  return l.zeros ? block[l.zero_offset + g * kRowBlock + row] - l.centre : 0;
}

void dequantize(const Layout& l, const uint8_t* block, int64_t k_begin, int64_t count, float* out) noexcept {
  for (int64_t k = k_begin; k < k_begin + (count + 31) / 32 * 32; ++k) {
    const int64_t g = group_of(l, k);
    for (int row = 0; row < kRowBlock; ++row)
      *out++ = static_cast<float>(field(l, block, k, row) - zero_of(l, block, g, row)) * scale_of(l, block, g, row);
  }
}

void decode(const Layout& l, const uint8_t* block, const Stretch& s, float* y) noexcept {
  for (int i = 0; i < s.m * kRowBlock; ++i) y[i] = 0;
  float w[32 * kRowBlock];
  for (int64_t k = s.begin; k < s.end; k += 32) {
    dequantize(l, block, k, 32, w);
    for (int64_t j = 0; j < 32; ++j)
      for (int i = 0; i < s.m; ++i)
        for (int row = 0; row < kRowBlock; ++row) y[i * kRowBlock + row] += s.x[(k - s.begin + j) * s.m + i] * w[j * kRowBlock + row];
  }
}

}  // namespace

const Table kScalar = {decode, dequantize};

}  // namespace statera::kernels::qgemm
