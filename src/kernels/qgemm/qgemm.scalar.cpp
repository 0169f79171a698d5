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

void group_sums(const Layout& l, const float* x, int64_t ldx, int m, float* sums) noexcept {
  for (int i = 0; i < m; ++i) {
    for (int64_t g = 0; g < l.groups; ++g) {
      const int64_t stop = (g + 1) * l.group < l.k ? (g + 1) * l.group : l.k;
      float sum = 0;
      for (int64_t k = g * l.group; k < stop; ++k) sum += x[i * ldx + k];
      sums[i * l.groups + g] = sum;
    }
  }
}

void dequantize(const Layout& l, const uint8_t* block, int64_t k_begin, int64_t count, float* out) noexcept {
  for (int64_t k = k_begin; k < k_begin + (count + 31) / 32 * 32; ++k) {
    const int64_t g = group_of(l, k);
    for (int row = 0; row < kRowBlock; ++row)
      *out++ = static_cast<float>(field(l, block, k, row) - zero_of(l, block, g, row)) * scale_of(l, block, g, row);
  }
}

void decode(const Layout& l, const uint8_t* block, const float* x, int64_t ldx, int m, const float*, float* y) noexcept {
  for (int i = 0; i < m * kRowBlock; ++i) y[i] = 0;
  float w[32 * kRowBlock];
  for (int64_t k = 0; k < l.k; k += 32) {
    const int64_t count = l.k - k < 32 ? l.k - k : 32;
    dequantize(l, block, k, count, w);
    for (int i = 0; i < m; ++i)
      for (int64_t j = 0; j < count; ++j)
        for (int row = 0; row < kRowBlock; ++row) y[i * kRowBlock + row] += x[i * ldx + k + j] * w[j * kRowBlock + row];
  }
}

}  // namespace

const Table kScalar = {group_sums, decode, dequantize};

}  // namespace statera::kernels::qgemm
