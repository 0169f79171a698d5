// gram: G += X^T diag(weight) X in f32 for many rows of X, lower triangle only. Rows are packed first, so that products read memory in order
// and an element of G is loaded and stored once per kRows of them.
#pragma once

#include <cstdint>

#include "kernels/tile/tile.h"

namespace statera::kernels::gram {

inline constexpr int64_t kColumns = 2 * tile::kRowBlock;  // of one packed panel
inline constexpr int64_t kRows = 8 * tile::kTileK;        // of X in a packed matrix
inline constexpr int64_t kStrip = 96;                     // rows of G that add() takes at once

inline int64_t panels(int64_t columns) { return (columns + kColumns - 1) / kColumns; }
inline int64_t strips(int64_t columns) { return (columns + kStrip - 1) / kStrip; }
// Floats of a packed matrix of kRows rows.
inline int64_t packed_size(int64_t columns) { return panels(columns) * kColumns * kRows; }

// Puts rows [0, count) of x [count, ldx >= columns] at rows [at, at + count) of the packed matrix, at + count <= kRows; panels [begin, end) of it.
void pack(const float* x, int64_t ldx, int64_t columns, int64_t at, int64_t count, float* packed, int64_t begin, int64_t end) noexcept;

// G[i][j] += sum over the first `rows` packed rows t of weight[t] X[t][i] X[t][j] (weight null: 1) for i in strips [begin, end) and at least all
// j <= i; g [columns, ldg >= columns]. Needs 400 KiB of stack. An element's sum does not depend on the range of strips.
void add(const float* packed, int64_t rows, int64_t columns, const float* weight, float* g, int64_t ldg, int64_t begin, int64_t end) noexcept;

}  // namespace statera::kernels::gram
