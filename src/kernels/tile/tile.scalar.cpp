// The specification of the f32 micro kernel; std::fma is not used (slow without hardware), so sums differ from it by rounding.
#include "kernels/tile/tile.h"

namespace statera::kernels::tile {
namespace {

void micro(const float* x, int rows, const float* w, int blocks, int64_t k, const float* init, int64_t ld_init, float* y,
           int64_t ldy, const void*) noexcept {
  for (int r = 0; r < rows; ++r) {
    for (int b = 0; b < blocks; ++b) {
      float acc[kRowBlock];
      for (int c = 0; c < kRowBlock; ++c) acc[c] = 0;
      const float* wb = w + b * kTileK * kRowBlock;
      for (int64_t i = 0; i < k; ++i)
        for (int c = 0; c < kRowBlock; ++c) acc[c] += x[r * kTileK + i] * wb[i * kRowBlock + c];
      for (int c = 0; c < kRowBlock; ++c) y[r * ldy + b * kRowBlock + c] = init[r * ld_init + b * kRowBlock + c] + acc[c];
    }
  }
}

}  // namespace

const Table kScalar = {4, micro};

}  // namespace statera::kernels::tile
