// The cache blocking around the micro kernels, and their dispatch.
#include "kernels/tile/tile.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu.h"
#include "kernels/tile/tiles.h"

namespace statera::kernels::tile {
namespace {

struct Block {
  const float* x;  // [rows][kTileK]
  int64_t rows;
  const float* w;  // [blocks][kTileK][16]
  int blocks;
  int64_t k;
  const float* bias;  // f32[16*blocks] at the first block of k, null at later ones
  float* y;           // first element of the block
  int64_t ldy;
  int64_t columns;  // valid ones, <= 16*blocks
};

void multiply(const Table& t, const Block& b) {
  const bool whole = b.columns == int64_t{kRowBlock} * b.blocks;
  alignas(64) float edge[16 * 2 * kRowBlock];
  for (int64_t r = 0; r < b.rows; r += t.max_rows) {
    const int rows = static_cast<int>(std::min<int64_t>(t.max_rows, b.rows - r));
    float* y = b.y + r * b.ldy;
    if (whole) {
      t.micro(b.x + r * kTileK, rows, b.w, b.blocks, b.k, b.bias ? b.bias : y, b.bias ? 0 : b.ldy, y, b.ldy, nullptr);
      continue;
    }
    const int64_t ld = kRowBlock * b.blocks;
    if (!b.bias) {
      std::memset(edge, 0, sizeof edge);
      for (int i = 0; i < rows; ++i) std::memcpy(edge + i * ld, y + i * b.ldy, b.columns * sizeof(float));
    }
    t.micro(b.x + r * kTileK, rows, b.w, b.blocks, b.k, b.bias ? b.bias : edge, b.bias ? 0 : ld, edge, ld, nullptr);
    for (int i = 0; i < rows; ++i) std::memcpy(y + i * b.ldy, edge + i * ld, b.columns * sizeof(float));
  }
}

}  // namespace

const Table& table() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }

void run(const float* x, int64_t ldx, int64_t m, int64_t k, const Weights& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
         int64_t n_end) noexcept {
  if (k <= 0) {
    for (int64_t i = 0; i < m; ++i)
      for (int64_t n = n_begin; n < n_end; ++n) y[i * ldy + n] = bias ? bias[n] : 0.0f;
    return;
  }
  if (const Tiles* t = tiles()) return run_tiles(*t, x, ldx, m, k, w, bias, y, ldy, n_begin, n_end);
  run_fma(x, ldx, m, k, w, bias, y + n_begin, ldy, n_begin, n_end);
}

void run_fma(const float* x, int64_t ldx, int64_t m, int64_t k, const Weights& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
             int64_t n_end) noexcept {
  const Table& t = table();
  alignas(64) float x_panel[kPanelK / kTileK][kTileM * kTileK];  // copied: rows of x a power of two apart would share cache sets
  alignas(64) float w_tile[2 * kTileK * kRowBlock];
  alignas(64) float start[2 * kRowBlock];
  // Equal shares, so that none is small: every one decodes all of W again.
  const int64_t tiles = (m + kTileM - 1) / kTileM, share = std::min<int64_t>(kTileM, ((m + tiles - 1) / tiles + 11) / 12 * 12);
  for (int64_t m0 = 0; m0 < m; m0 += share) {
    const int64_t rows = std::min<int64_t>(share, m - m0);
    for (int64_t panel = 0; panel < k; panel += kPanelK) {
      const int64_t k_end = std::min<int64_t>(k, panel + kPanelK);
      auto depth = [&](int64_t k0) { return std::min<int64_t>(kTileK, k_end - k0); };
      for (int64_t k0 = panel; k0 < k_end; k0 += kTileK) {
        float* to = x_panel[(k0 - panel) / kTileK];
        for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * kTileK, x + (m0 + r) * ldx + k0, depth(k0) * sizeof(float));
      }
      for (int64_t n = n_begin; n < n_end; n += 2 * kRowBlock) {
        const int64_t columns = std::min<int64_t>(2 * kRowBlock, n_end - n);
        const int blocks = columns > kRowBlock ? 2 : 1;
        for (int64_t c = 0; c < 2 * kRowBlock; ++c) start[c] = bias && c < columns ? bias[n + c] : 0.0f;
        for (int64_t k0 = panel; k0 < k_end; k0 += kTileK) {
          for (int b = 0; b < blocks; ++b) w.fill(w.source, n / kRowBlock + b, k0, depth(k0), w_tile + b * kTileK * kRowBlock);
          multiply(t, {x_panel[(k0 - panel) / kTileK], rows, w_tile, blocks, depth(k0), k0 == 0 ? start : nullptr, y + m0 * ldy + n - n_begin, ldy, columns});
        }
      }
    }
  }
}

}  // namespace statera::kernels::tile
