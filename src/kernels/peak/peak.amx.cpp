// Tiles of 16 rows of 64 bytes: six accumulators and the two operands are all eight. Specification: peak.scalar.cpp.
#include "kernels/peak/peak.h"

#include <immintrin.h>

#include "kernels/amx_config.h"

namespace statera::kernels::peak {
namespace {

constexpr int kAccumulators = 6, kRows = 16, kStride = 64;

void begin(const void* ones) {
  _tile_loadconfig(&kTileConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_loadd(6, ones, kStride);
  _tile_loadd(7, ones, kStride);
}

// The accumulators, one behind the other.
void end(void* out) {
  auto* to = static_cast<char*>(out);
  _tile_stored(0, to, kStride);
  _tile_stored(1, to + kRows * kStride, kStride);
  _tile_stored(2, to + 2 * kRows * kStride, kStride);
  _tile_stored(3, to + 3 * kRows * kStride, kStride);
  _tile_stored(4, to + 4 * kRows * kStride, kStride);
  _tile_stored(5, to + 5 * kRows * kStride, kStride);
  _tile_release();
}

template <class T>
double sum_of(const T* values) {
  double sum = 0;
  for (int i = 0; i < kAccumulators * kRows * 16; ++i) sum += static_cast<double>(values[i]);
  return sum;
}

double bf16(int64_t rounds) noexcept {
  alignas(64) uint16_t ones[kRows * 32];
  for (uint16_t& x : ones) x = 0x3f80;
  begin(ones);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
    _tile_dpbf16ps(4, 6, 7);
    _tile_dpbf16ps(5, 6, 7);
  }
  alignas(64) float out[kAccumulators * kRows * 16];
  end(out);
  return sum_of(out);
}

double int8(int64_t rounds) noexcept {
  alignas(64) int8_t ones[kRows * 64];
  for (int8_t& x : ones) x = 1;
  begin(ones);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbssd(0, 6, 7);
    _tile_dpbssd(1, 6, 7);
    _tile_dpbssd(2, 6, 7);
    _tile_dpbssd(3, 6, 7);
    _tile_dpbssd(4, 6, 7);
    _tile_dpbssd(5, 6, 7);
  }
  alignas(64) int32_t out[kAccumulators * kRows * 16];
  end(out);
  return sum_of(out);
}

constexpr Peak kPeaks[] = {{Kind::bf16, "tdpbf16ps", nullptr, kAccumulators * 16 * 16 * 32, bf16},
                           {Kind::int8, "tdpbssd", nullptr, kAccumulators * 16 * 16 * 64, int8}};

}  // namespace

const Table kAmx = {nullptr, kPeaks, 2};

}  // namespace statera::kernels::peak
