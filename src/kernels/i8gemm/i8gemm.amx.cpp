// Prefill by tiles: 32 rows of x by two blocks of W are four accumulators of 16 x 16 int32. A tile of x is 16 rows of 64 codes of k, one of
// W 64 codes of k of 16 rows, four a 32-bit lane, as Strip holds them.
// Specification: i8gemm.scalar.cpp; the f32 side is i8gemm.avx512.cpp's, operation by operation.
//
// What bounds it: 64 k take TMUL 64 cycles (four products of 16) and 64 loads of a line: 32 cycles from the first-level cache, more than TMUL
// takes from the second. The sums of a segment are 64 vectors that are stored, loaded, scaled and added: 128 cycles of the vector and store
// ports at best, as much as TMUL works on a segment of 128. So little k goes at a time (kTileChunk), that strips, x and sums stay in the
// first-level cache, and totals stay in registers over two segments. Measured on Granite Rapids: products alone take 1.2 times TMUL's cycles,
// with the sums of each segment of 128 stored twice them; the f32 side does not overlap with either, and mixing it into the steps of the next
// segment is slower (loads wait for stores 4 KiB apart).
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

#include "kernels/amx_config.h"

namespace statera::kernels::i8gemm {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

constexpr int kK = kTileCodes;
constexpr int kRows = 2 * kRowBlock;           // of x
constexpr int kColumns = kBlocks * kRowBlock;  // of y
constexpr int kSums = kRows * kColumns;
constexpr int64_t kTileBytes = kRowBlock * kK;
constexpr int64_t kSumsBytes = kColumns * sizeof(int32_t);  // a row of sums
static_assert(kRowBlock == 16 && kBlocks == 2);

void begin() noexcept { _tile_loadconfig(&kTileConfig); }
void end() noexcept { _tile_release(); }

// Tiles 0 to 3: sums of rows 0.. by blocks 0 and 1, of rows 16.. by both; 4 and 5: x; 6 and 7: W. A of x and B of W are in use.
template <int A, int B>
STATERA_INLINE void step(const int8_t* q, const uint8_t* codes, int64_t block_bytes) {
  _tile_loadd(4, q, kK);
  _tile_loadd(6, codes, kK);
  _tile_dpbsud(0, 4, 6);
  if constexpr (B > 1) {
    _tile_loadd(7, codes + block_bytes, kK);
    _tile_dpbsud(1, 4, 7);
  }
  if constexpr (A > 1) {
    _tile_loadd(5, q + kTileBytes, kK);
    _tile_dpbsud(2, 5, 6);
    if constexpr (B > 1) _tile_dpbsud(3, 5, 7);
  }
}

STATERA_INLINE void clear() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

template <int A, int B>
STATERA_INLINE void keep(int32_t* sums) {
  _tile_stored(0, sums, kSumsBytes);
  if constexpr (B > 1) _tile_stored(1, sums + kRowBlock, kSumsBytes);
  if constexpr (A > 1) {
    _tile_stored(2, sums + kRowBlock * kColumns, kSumsBytes);
    if constexpr (B > 1) _tile_stored(3, sums + kRowBlock * kColumns + kRowBlock, kSumsBytes);
  }
}

// sum + zero * minus_sum: one instruction where both fit 16 bits.
STATERA_INLINE __m512i minus_zeros(__m512i sum, __m512i zero, __m512i minus_sum, bool is_short) {
  return is_short ? _mm512_dpwssd_epi32(sum, zero, minus_sum) : _mm512_add_epi32(sum, _mm512_mullo_epi32(zero, minus_sum));
}

// to = from + N segments from s on, whose sums are known.
template <int B, int N>
void meet(const Strip& w, const Tile& x, int64_t s, const int32_t* sums, const float* from, int64_t ld_from, float* to, int64_t ld_to) {
  const bool is_short = w.segment <= kShortSegment;
  __m512 scale[N][B];
  __m512i zero[N][B];
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) {
      const int64_t at = (s + n) * kColumns + b * kRowBlock;
      scale[n][b] = _mm512_loadu_ps(w.scale + at);
      zero[n][b] = w.zero ? _mm512_loadu_si512(w.zero + at) : _mm512_set1_epi32(w.centre);
    }
  for (int r = 0; r < x.wanted; ++r) {
    __m512 total[B];
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) total[b] = _mm512_loadu_ps(from + r * ld_from + b * kRowBlock);
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      const __m512 x_scale = _mm512_set1_ps(x.scale[(s + n) * x.rows + r]);
      const __m512i minus_sum = _mm512_set1_epi32(x.minus_sum[(s + n) * x.rows + r]);
#pragma GCC unroll 2
      for (int b = 0; b < B; ++b) {
        const __m512i sum = _mm512_load_si512(sums + n * kSums + r * kColumns + b * kRowBlock);
        const __m512 product = _mm512_cvtepi32_ps(minus_zeros(sum, zero[n][b], minus_sum, is_short));
        total[b] = _mm512_fmadd_ps(product, _mm512_mul_ps(scale[n][b], x_scale), total[b]);
      }
    }
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) _mm512_storeu_ps(to + r * ld_to + b * kRowBlock, total[b]);
  }
}

// The strip's k is a multiple of 32: where it ends within 64, x is 0 from there on.
template <int A, int B>
void micro_tiles(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) {
  alignas(64) int32_t sums[kTileChunk / kK][kSums];
  const int8_t* q = x.q;
  const uint8_t* codes = w.codes;
  int64_t segments = 0;
  for (int64_t k = w.k; k > 0; k -= w.segment, ++segments) {
    clear();
    for (int64_t left = k < w.segment ? k : w.segment; left > 0; left -= kK, q += kRows * kK, codes += kTileBytes)
      step<A, B>(q, codes, w.block_bytes);
    keep<A, B>(sums[segments]);
  }
  for (int64_t s = 0; s < segments; s += 2) {
    const auto meet_all = segments - s > 1 ? meet<B, 2> : meet<B, 1>;
    meet_all(w, x, s, sums[s], s > 0 ? y : init, s > 0 ? ldy : ld_init, y, ldy);
  }
}

void micro(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept {
  using MicroOf = void (*)(const Strip&, const Tile&, const float*, int64_t, float*, int64_t);
  static constexpr MicroOf kBySize[2][2] = {{micro_tiles<1, 1>, micro_tiles<1, 2>}, {micro_tiles<2, 1>, micro_tiles<2, 2>}};
  kBySize[x.wanted > kRowBlock][w.blocks - 1](w, x, init, ld_init, y, ldy);
}

}  // namespace

const Micro kAmx = {kK, kRows, micro, begin, end};

}  // namespace statera::kernels::i8gemm
