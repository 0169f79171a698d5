// TDPBF16PS: 32 rows of A by 32 columns of C are four accumulators of 16 x 16; a step is 32 of k. A panel's pairs lie as a tile of B wants
// them. What a depth has beyond a multiple of 32 goes through vdpbf16ps. Specification: bgemm.scalar.cpp.
#include "kernels/bgemm/bgemm.h"

#include <immintrin.h>

#include "kernels/amx_config.h"

namespace statera::kernels::bgemm {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

constexpr int kMaxRows = 32, kSide = 16;  // a tile: 16 rows of 16 words
constexpr int64_t kStrideA = kDepth / 2 * sizeof(uint32_t), kStrideB = kColumns * sizeof(uint32_t);
static_assert(kRows % kMaxRows == 0 && kColumns == 2 * kSide && kMaxRows <= kMaxMicroRows);

void begin() noexcept { _tile_loadconfig(&kTileConfig); }
void end() noexcept { _tile_release(); }

// Tiles 0 to 3: C, rows 0.. by both halves of the columns, then rows 16..; 4 and 5: A; 6 and 7: B. A blocks of 16 rows.
template <int A>
STATERA_INLINE void load(const float* y, int64_t stride) {
  _tile_loadd(0, y, stride);
  _tile_loadd(1, y + kSide, stride);
  if constexpr (A > 1) {
    _tile_loadd(2, y + kSide * stride / 4, stride);
    _tile_loadd(3, y + kSide * stride / 4 + kSide, stride);
  }
}

template <int A>
STATERA_INLINE void store(float* y, int64_t stride) {
  _tile_stored(0, y, stride);
  _tile_stored(1, y + kSide, stride);
  if constexpr (A > 1) {
    _tile_stored(2, y + kSide * stride / 4, stride);
    _tile_stored(3, y + kSide * stride / 4 + kSide, stride);
  }
}

// y [16 A, 32] (+)= the first `pairs` pairs, a multiple of 16.
template <int A>
void multiply(const uint32_t* a, const uint32_t* b, int64_t pairs, bool add, float* y, int64_t ldy) {
  const int64_t stride = ldy * static_cast<int64_t>(sizeof(float));
  if (add) {
    load<A>(y, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t i = 0; i < pairs; i += kSide) {
    _tile_loadd(4, a + i, kStrideA);
    _tile_loadd(6, b + i * kColumns, kStrideB);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + i * kColumns + kSide, kStrideB);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (A > 1) {
      _tile_loadd(5, a + kSide * (kDepth / 2) + i, kStrideA);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  store<A>(y, stride);
}

void copy(const float* from, int64_t ld_from, int rows, float* to, int64_t ld_to) {
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < kColumns; j += kSide) _mm512_storeu_ps(to + r * ld_to + j, _mm512_loadu_ps(from + r * ld_from + j));
}

void micro(const uint32_t* a, int rows, const uint32_t* b, int64_t pairs, bool add, float* y, int64_t ldy) noexcept {
  const int64_t whole = pairs / kSide * kSide;
  if (whole > 0) {
    const auto of_size = rows > kSide ? multiply<2> : multiply<1>;
    if (rows % kSide == 0) {
      of_size(a, b, whole, add, y, ldy);
    } else {  // tiles have all their rows: those of A beyond `rows` are rows of another product
      alignas(64) float edge[kMaxRows * kColumns];
      if (add) copy(y, ldy, rows, edge, kColumns);
      of_size(a, b, whole, add, edge, kColumns);
      copy(edge, kColumns, rows, y, ldy);
    }
  }
  if (whole == pairs) return;
  const Micro& rest = kAvx512Bf16.micro;
  for (int r = 0; r < rows; r += rest.max_rows)
    rest.run(a + r * (kDepth / 2) + whole, rows - r < rest.max_rows ? rows - r : rest.max_rows, b + whole * kColumns, pairs - whole, add || whole > 0, y + r * ldy, ldy);
}

}  // namespace

const Micro kAmx = {kMaxRows, micro, begin, end};

}  // namespace statera::kernels::bgemm
