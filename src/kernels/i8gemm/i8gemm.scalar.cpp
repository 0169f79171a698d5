// The specification of the integer kernels.
#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::i8gemm {
namespace {

using qgemm::Layout;
using qgemm::ScaleType;

float half_value(uint32_t h) {
  const uint32_t exponent = h >> 10 & 31, fraction = h & 1023, sign = (h & 0x8000) << 16;
  if (exponent == 0) {
    const float v = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -v : v;
  }
  return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
}

void unpack(const Layout& l, const uint8_t* block, int64_t unit, int64_t units, uint8_t* codes) noexcept {
  const uint32_t mask = (1u << l.bits) - 1;
  for (int64_t k = unit * 32; k < (unit + units) * 32; ++k)
    for (int row = 0; row < kRowBlock; ++row) {
      const int64_t bit = k % 32 * l.bits;
      const uint32_t* at = reinterpret_cast<const uint32_t*>(block) + (k / 32 * l.bits + bit / 32) * kRowBlock + row;
      uint32_t v = at[0] >> bit % 32;
      if (bit % 32 + l.bits > 32) v |= at[kRowBlock] << (32 - bit % 32);
      codes[((k - unit * 32) / 4 * kRowBlock + row) * 4 + k % 4] = static_cast<uint8_t>((v + static_cast<uint32_t>(l.centre)) & mask);
    }
}

void group(const Layout& l, const uint8_t* block, int64_t g, float* scale, int32_t* zero) noexcept {
  for (int row = 0; row < kRowBlock; ++row) {
    const int64_t slot = g * kRowBlock + row;
    const uint8_t* scales = block + l.scale_offset;
    if (l.scale == ScaleType::f32) {
      scale[row] = reinterpret_cast<const float*>(scales)[slot];
    } else {
      const uint32_t h = reinterpret_cast<const uint16_t*>(scales)[slot];
      scale[row] = l.scale == ScaleType::f16 ? half_value(h) : __builtin_bit_cast(float, h << 16);
    }
    if (zero) zero[row] = block[l.zero_offset + slot];
  }
}

void micro(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept {
  for (int r = 0; r < x.rows; ++r)
    for (int b = 0; b < w.blocks; ++b) {
      float total[kRowBlock];
      for (int row = 0; row < kRowBlock; ++row) total[row] = init[r * ld_init + b * kRowBlock + row];
      for (int64_t s = 0; s * w.segment < w.k; ++s) {
        const int64_t end = (s + 1) * w.segment < w.k ? (s + 1) * w.segment : w.k;
        const int64_t group = (s * kBlocks + b) * kRowBlock;
        int32_t sum[kRowBlock];
        for (int row = 0; row < kRowBlock; ++row) sum[row] = (w.zero ? w.zero[group + row] : w.centre) * x.minus_sum[s * x.rows + r];
        for (int64_t k = s * w.segment; k < end; ++k)
          for (int row = 0; row < kRowBlock; ++row)
            sum[row] += x.q[4 * (k / 4 * x.rows + r) + k % 4] * w.codes[b * w.block_bytes + (k / 4 * kRowBlock + row) * 4 + k % 4];
        for (int row = 0; row < kRowBlock; ++row)
          total[row] += static_cast<float>(sum[row]) * (w.scale[group + row] * x.scale[s * x.rows + r]);
      }
      for (int row = 0; row < kRowBlock; ++row) y[r * ldy + b * kRowBlock + row] = total[row];
    }
}

float max_abs(const float* x, int64_t k) noexcept {
  float most = 0;
  for (int64_t i = 0; i < k; ++i) {
    const float a = __builtin_fabsf(x[i]);
    if (a > most || a != a) most = a;
  }
  return most;
}

int32_t quantize(const float* x, int64_t k, float scale, int8_t* q) noexcept {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) {
    float v = x[i] / scale;
    v = v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v;  // first: the conversion of a float outside int32 would be undefined
    v = (v + 12582912.0f) - 12582912.0f;                  // 1.5 * 2^23: rounds to an integer, halves to even
    q[i] = static_cast<int8_t>(v);
    sum += q[i];
  }
  return sum;
}

}  // namespace

const Table kScalar = {unpack, group, micro, nullptr, max_abs, quantize};

}  // namespace statera::kernels::i8gemm
