// The cache blocking around tiles: x of many rows is cut into terms once a panel of k, W once a block of k and share of rows.
#include "kernels/tile/tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu.h"

namespace statera::kernels::tile {
namespace {

constexpr int64_t kSteps = kPanelK / kStep;        // of x in a panel
constexpr int64_t kMostRows = 256;                 // of x in the second-level cache, 1.2 MiB
constexpr int64_t kBlockSteps = kTileK / kStep;    // that are multiplied at a time: 24 KiB of 32 rows of x in the first-level cache
constexpr int64_t kGroup = 4;                      // blocks of 32 rows of W that meet x there, one after the other, and whose columns of y are read together
constexpr int64_t kStepWords = kMaxTerms * kPairWords;  // of x
static_assert(kPanelK % kTileK == 0 && kMostRows % kTilesRows == 0);

struct Task {
  const Tiles& t;
  const Weights& w;

  // W of 32 rows from n on over [k, k + count), count <= kTileK; how many terms it takes.
  int pack(int64_t n, int64_t columns, int64_t k, int64_t count, uint32_t* to) const {
    const int64_t block = n / kRowBlock, steps = (count + kStep - 1) / kStep;
    const int blocks = columns > kRowBlock ? 2 : 1;
    if (w.pairs) {
      constexpr int64_t kHalf = kPairWords / 2;
      for (int64_t s = 0; s < steps; ++s, to += kPairWords) {
        for (int b = 0; b < blocks; ++b) w.pairs(w.source, block + b, k + s * kStep, std::min<int64_t>(kStep, count - s * kStep), to + b * kHalf);
        if (blocks == 1) std::memset(to + kHalf, 0, kHalf * sizeof(uint32_t));
      }
      return 1;
    }
    constexpr int64_t kLd = kTileK * kRowBlock;
    alignas(64) float wide[2 * kLd];
    for (int b = 0; b < blocks; ++b) w.fill(w.source, block + b, k, count, wide + b * kLd);
    return t.pack_w(wide, kLd, blocks, count, to);
  }
};

// Columns of y, at most kGroup * 32, whose sums over a panel of k gather near: y's own rows lie pages apart.
struct Gathered {
  float* y;  // [m, ldy], the first of the columns
  int64_t ldy, count, rows;
  float* totals;  // [kGroup][rows up to a multiple of 32][32]
  int64_t stride() const { return (rows + kTilesRows - 1) / kTilesRows * kTilesRows * kTilesRows; }

  template <class Copy>
  void each(Copy copy) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < count; c += kTilesRows)
        copy(totals + c / kTilesRows * stride() + r * kTilesRows, y + r * ldy + c, static_cast<size_t>(std::min<int64_t>(kTilesRows, count - c)) * sizeof(float), c);
  }
  // bias f32[count] or null: zeros; so_far: y takes their place.
  void begin(const float* bias, bool so_far) const {
    if (!so_far && !bias) return void(std::memset(totals, 0, static_cast<size_t>(kGroup * stride()) * sizeof(float)));
    if (count % kTilesRows) std::memset(totals + count / kTilesRows * stride(), 0, static_cast<size_t>(stride()) * sizeof(float));
    each([&](float* total, const float* from, size_t bytes, int64_t c) { std::memcpy(total, so_far ? from : bias + c, bytes); });
  }
  // Whether any of them is NaN.
  bool end() const {
    bool nan = false;
    each([&](const float* total, float* to, size_t bytes, int64_t) {
      std::memcpy(to, total, bytes);
      for (int i = 0; i < kTilesRows; ++i) nan |= total[i] != total[i];
    });
    return nan;
  }
};

// Tiles multiply an infinite number by the zeros among the other's terms, which is NaN: such elements become what FMAs make of them. x [.., ldx], n:
// the columns' first row of W.
void mend(const Gathered& g, const float* x, int64_t ldx, int64_t k, const Weights& w, const float* bias, int64_t n) {
  alignas(64) float again[kTilesRows * kGroup * kTilesRows];
  for (int64_t r = 0; r < g.rows; r += kTilesRows) {
    const int64_t rows = std::min<int64_t>(kTilesRows, g.rows - r);
    float* y = g.y + r * g.ldy;
    const auto each = [&](auto visit) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < g.count; ++c)
          if (std::isnan(y[i * g.ldy + c])) visit(i, c);
    };
    bool any = false;
    each([&](int64_t, int64_t) { any = true; });
    if (!any) continue;
    run_fma(x + r * ldx, ldx, rows, k, w, bias, again, g.count, n, n + g.count);
    each([&](int64_t i, int64_t c) { y[i * g.ldy + c] = again[i * g.count + c]; });
  }
}

}  // namespace

const Tiles* tiles() { return active_isa() == Isa::amx ? &kAmxTiles : nullptr; }

void run_tiles(const Tiles& t, const float* x, int64_t ldx, int64_t m, int64_t k, const Weights& w, const float* bias, float* y, int64_t ldy,
               int64_t n_begin, int64_t n_end) noexcept {
  const Task task{t, w};
  const int64_t shares = (m + kMostRows - 1) / kMostRows;
  const int64_t share = ((m + shares - 1) / shares + kTilesRows - 1) / kTilesRows * kTilesRows;
  alignas(64) uint32_t x_panel[kMostRows / kTilesRows * kSteps * kStepWords], w_blocks[kGroup][kBlockSteps * kStepWords];
  alignas(64) float totals[kGroup * kMostRows * kTilesRows];
  if (t.begin) t.begin();
  for (int64_t m0 = 0; m0 < m; m0 += share) {
    const int64_t rows = std::min(share, m - m0);
    for (int64_t panel = 0; panel < k || panel == 0; panel += kPanelK) {
      const int64_t depth = std::min<int64_t>(kPanelK, k - panel), row_words = (depth + kStep - 1) / kStep * kStepWords;
      for (int64_t r = 0; r < rows; r += kTilesRows)
        t.pack_x(x + (m0 + r) * ldx + panel, ldx, static_cast<int>(std::min<int64_t>(kTilesRows, rows - r)), depth,
                 x_panel + r / kTilesRows * row_words);
      for (int64_t n = n_begin; n < n_end; n += kGroup * kTilesRows) {
        const Gathered g{y + m0 * ldy + n, ldy, std::min<int64_t>(kGroup * kTilesRows, n_end - n), rows, totals};
        g.begin(bias ? bias + n : nullptr, panel > 0);
        for (int64_t k0 = 0; k0 < depth; k0 += kTileK) {
          const int64_t count = std::min<int64_t>(kTileK, depth - k0), steps = (count + kStep - 1) / kStep;
          int terms[kGroup];
          for (int64_t c = 0; c < g.count; c += kTilesRows)
            terms[c / kTilesRows] = task.pack(n + c, std::min<int64_t>(kTilesRows, g.count - c), panel + k0, count, w_blocks[c / kTilesRows]);
          const uint32_t* at = x_panel + k0 / kStep * kStepWords;
          for (int64_t r = 0; r < rows; r += kTilesRows, at += row_words)
            for (int64_t b = 0; b * kTilesRows < g.count; ++b)
              t.micro(at, static_cast<int>(std::min<int64_t>(kTilesRows, rows - r)), w_blocks[b], terms[b], steps, totals + b * g.stride() + r * kTilesRows);
        }
        if (g.end() && panel + kPanelK >= k) mend(g, x + m0 * ldx, ldx, k, w, bias, n);
      }
    }
  }
  if (t.end) t.end();
}

}  // namespace statera::kernels::tile
