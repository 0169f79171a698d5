// A strip of G at a time: its channels of X are transposed once, then meet one panel after another. Element (t, j) of a packed matrix lies in
// panel j / 32, in its block t / kTileK, there in half (j % 32) / 16, as [kTileK][16]: what the micro kernel of tile.h reads in order.
#include "kernels/gram/gram.h"

#include <algorithm>
#include <cstring>

namespace statera::kernels::gram {
namespace {

using tile::kRowBlock;
using tile::kTileK;

constexpr int64_t kHalf = int64_t{kTileK} * kRowBlock, kBlock = 2 * kHalf, kPanel = kRows / kTileK * kBlock;

const float* half_of(const float* packed, int64_t column, int64_t block) {
  return packed + column / kColumns * kPanel + block * kBlock + column % kColumns / kRowBlock * kHalf;
}

// out[r][i] = weight[i] X[i][first + r] of one block of rows, r < kStrip rounded up to 16s that exist.
void transpose(const float* packed, int64_t first, int64_t channels, int64_t block, int64_t depth, const float* weight, float* out) {
  for (int64_t r = 0; r < channels; r += kRowBlock) {
    const float* from = half_of(packed, first + r, block);
    const int64_t count = std::min<int64_t>(kRowBlock, channels - r);
    for (int64_t i0 = 0; i0 < depth; i0 += 16) {
      const int64_t i1 = std::min(depth, i0 + 16);
      for (int64_t c = 0; c < count; ++c) {
        float* to = out + (r + c) * kTileK;
        for (int64_t i = i0; i < i1; ++i) to[i] = weight ? from[i * kRowBlock + c] * weight[i] : from[i * kRowBlock + c];
      }
    }
  }
}

// y [rows, columns <= 32] += x_tile times one block of a panel.
// The block that comes after it in memory is asked for meanwhile.
void multiply(const tile::Table& t, const float* x, int64_t rows, const float* w, int64_t depth, float* y, int64_t ldy, int64_t columns) {
  alignas(64) float edge[16 * kColumns];
  for (int64_t r = 0; r < rows; r += t.max_rows) {
    const int count = static_cast<int>(std::min<int64_t>(t.max_rows, rows - r));
    float* to = y + r * ldy;
    // All calls together cover a block: kStrip rows are 8 calls of 12.
    const char* ahead = reinterpret_cast<const char*>(w + kBlock) + r / 12 * (16 * kTileK);
    if (columns == kColumns) {
      t.micro(x + r * kTileK, count, w, 2, depth, to, ldy, to, ldy, ahead);
      continue;
    }
    std::memset(edge, 0, sizeof edge);
    for (int i = 0; i < count; ++i) std::memcpy(edge + i * kColumns, to + i * ldy, columns * sizeof(float));
    t.micro(x + r * kTileK, count, w, 2, depth, edge, kColumns, edge, kColumns, ahead);
    for (int i = 0; i < count; ++i) std::memcpy(to + i * ldy, edge + i * kColumns, columns * sizeof(float));
  }
}

}  // namespace

void pack(const float* x, int64_t ldx, int64_t columns, int64_t at, int64_t count, float* packed, int64_t begin, int64_t end) noexcept {
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t column = p * kColumns + half * kRowBlock;
      const int64_t there = std::clamp<int64_t>(columns - column, 0, kRowBlock);
      for (int64_t r = 0; r < count; ++r) {
        const int64_t t = at + r;
        float* to = packed + p * kPanel + t / kTileK * kBlock + half * kHalf + t % kTileK * kRowBlock;
        if (there == kRowBlock) {
          std::memcpy(to, x + r * ldx + column, kRowBlock * sizeof(float));
        } else {
          std::memset(to, 0, kRowBlock * sizeof(float));
          std::memcpy(to, x + r * ldx + column, there * sizeof(float));
        }
      }
    }
  }
}

void add(const float* packed, int64_t rows, int64_t columns, const float* weight, float* g, int64_t ldg, int64_t begin, int64_t end) noexcept {
  const tile::Table& t = tile::table();
  alignas(64) float left[kRows / kTileK][kStrip * kTileK];
  const int64_t blocks = (rows + kTileK - 1) / kTileK;
  for (int64_t s = begin; s < end; ++s) {
    const int64_t first = s * kStrip, channels = std::min(kStrip, columns - first);
    auto depth = [&](int64_t block) { return std::min<int64_t>(kTileK, rows - block * kTileK); };
    for (int64_t b = 0; b < blocks; ++b) transpose(packed, first, channels, b, depth(b), weight ? weight + b * kTileK : nullptr, left[b]);
    for (int64_t n = 0; n < first + channels; n += kColumns) {
      const int64_t width = std::min(kColumns, columns - n);
      for (int64_t b = 0; b < blocks; ++b)
        multiply(t, left[b], channels, packed + n / kColumns * kPanel + b * kBlock, depth(b), g + first * ldg + n, ldg, width);
    }
  }
}

}  // namespace statera::kernels::gram
