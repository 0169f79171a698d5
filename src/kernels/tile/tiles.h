// tiles: tile.h's products where the machine multiplies tiles of bf16 (AMX). A number in f32 is the sum of at most three bf16 terms, each the upper
// half of what those before it leave, so that products of terms, which f32 holds, add up to the product in f32: three products for W in bf16, at a
// sixteenth of an FMA's time each.
// Not an entry point for models.
#pragma once

#include <cstdint>

#include "kernels/tile/tile.h"

namespace statera::kernels::tile {

inline constexpr int kTilesRows = 32;     // of x, and of W, that are multiplied together
inline constexpr int kStep = 32;          // k of a step
inline constexpr int kMaxTerms = 3;
inline constexpr int64_t kPairWords = 512;  // 32-bit words of one term of 32 rows over a step

// Infinities stay what they are, in the first term; so do NaN. Numbers below 2^-126, as terms, count as zero.
// Words of a pack: [step][term][2][16][16], x with all its terms, W with those that it needs. Of x: row r of 32 in the r / 16 of 2, its 32 k of the step, two a word. Of W: 16 pairs of k, 16 rows.
struct Tiles {
  // x [rows <= 32, ldx] over k (rounded up to steps, with zeros), rows beyond `rows` zeros.
  void (*pack_x)(const float* x, int64_t ldx, int rows, int64_t k, uint32_t* out) noexcept;
  // w [blocks <= 2] blocks ldw apart of [k][16] f32, as Fill leaves them. Returns how many terms it took: those up to the last that holds anything.
  int (*pack_w)(const float* w, int64_t ldw, int blocks, int64_t k, uint32_t* out) noexcept;
  // y[r][0..32) += x w^T over steps for r < 16 or, with rows > 16, 32; y [.., 32].
  void (*micro)(const uint32_t* x, int rows, const uint32_t* w, int w_terms, int64_t steps, float* y) noexcept;
  // Around any number of micro() on one thread; null: nothing to do.
  void (*begin)() noexcept;
  void (*end)() noexcept;
};
extern const Tiles kScalarTiles;  // the specification
extern const Tiles kAmxTiles;

// Of the active instruction set; null: its products are tile.h's.
const Tiles* tiles();

// tile::run() on them.
void run_tiles(const Tiles& t, const float* x, int64_t ldx, int64_t m, int64_t k, const Weights& w, const float* bias, float* y, int64_t ldy,
               int64_t n_begin, int64_t n_end) noexcept;

}  // namespace statera::kernels::tile
