// TDPBF16PS on numbers cut into bf16 terms: 32 rows of x by 32 of W in four accumulators of 16 x 16, a step is 32 of k. What bounds it is TMUL
// (16 cycles a product): loads of a step take half of that, sums are read and written once per block of k. Specification: tiles.scalar.cpp.
#include "kernels/tile/tiles.h"

#include <immintrin.h>

#include "kernels/amx_config.h"

namespace statera::kernels::tile {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

constexpr int kSide = 16;                      // rows of a tile; words in one
constexpr int64_t kTileWords = kSide * kSide;  // 1 KiB
static_assert(kTilesRows == 2 * kSide && kStep == 2 * kSide && kPairWords == 2 * kTileWords);

void begin() noexcept { _tile_loadconfig(&kTileConfig); }
void end() noexcept { _tile_release(); }

// The next term of what is left, in the upper halves of its words, and what is left then.
STATERA_INLINE __m512i take(__m512& left) {
  const __mmask16 odd = _mm512_fpclass_ps_mask(left, 0x99), nan = _mm512_fpclass_ps_mask(left, 0x81);  // infinities and NaN; NaN
  __m512i term = _mm512_and_si512(_mm512_castps_si512(left), _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
  term = _mm512_mask_or_epi32(term, nan, term, _mm512_set1_epi32(0x00400000));
  left = _mm512_maskz_sub_ps(static_cast<__mmask16>(~odd), left, _mm512_castsi512_ps(term));
  return term;
}

STATERA_INLINE __mmask16 first(int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1); }

void pack_x(const float* x, int64_t ldx, int rows, int64_t k, uint32_t* out) noexcept {
  const int64_t steps = (k + kStep - 1) / kStep;
  for (int r = 0; r < kTilesRows; ++r) {
    uint32_t* to = out + r / kSide * kTileWords + r % kSide * kSide;
    for (int64_t s = 0; s < steps; ++s) {
      const int64_t left = r < rows ? k - s * kStep : 0;
      __m512 low = _mm512_maskz_loadu_ps(first(left), x + r * ldx + s * kStep);
      __m512 high = _mm512_maskz_loadu_ps(first(left - kSide), x + r * ldx + s * kStep + kSide);
      for (int t = 0; t < kMaxTerms; ++t) {
        const __m256i a = _mm512_cvtepi32_epi16(_mm512_srli_epi32(take(low), 16)), b = _mm512_cvtepi32_epi16(_mm512_srli_epi32(take(high), 16));
        _mm512_storeu_si512(to + (s * kMaxTerms + t) * kPairWords, _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1));
      }
    }
  }
}

int pack_w(const float* w, int64_t ldw, int blocks, int64_t k, uint32_t* out) noexcept {
  const int64_t steps = (k + kStep - 1) / kStep;
  // Terms that are all zeros are left out: most weights have bf16's 8 bits. Packed for all, then closed up.
  __mmask16 used[kMaxTerms] = {};
  for (int64_t s = 0; s < steps; ++s)
    for (int b = 0; b < 2; ++b)
      for (int i = 0; i < kSide; ++i) {
        const int64_t at = s * kStep + 2 * i;
        __m512 even = b < blocks && at < k ? _mm512_loadu_ps(w + b * ldw + at * kSide) : _mm512_setzero_ps();
        __m512 odd = b < blocks && at + 1 < k ? _mm512_loadu_ps(w + b * ldw + (at + 1) * kSide) : _mm512_setzero_ps();
        for (int t = 0; t < kMaxTerms; ++t) {
          const __m512i word = _mm512_or_si512(_mm512_srli_epi32(take(even), 16), take(odd));
          used[t] |= _mm512_test_epi32_mask(word, word);
          _mm512_storeu_si512(out + (s * kMaxTerms + t) * kPairWords + b * kTileWords + i * kSide, word);
        }
      }
  int needed = kMaxTerms;
  while (needed > 1 && !used[needed - 1]) --needed;
  if (needed < kMaxTerms)
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t i = 0; i < needed * kPairWords; i += kSide)
        _mm512_storeu_si512(out + s * needed * kPairWords + i, _mm512_loadu_si512(out + s * kMaxTerms * kPairWords + i));
  return needed;
}

// A blocks of 16 rows of x; terms i of x and j of W, counted from 0, are multiplied where i + j < kMaxTerms: the others are below 2^-24 of the product.
template <int A>
void multiply(const uint32_t* x, const uint32_t* w, int w_terms, int64_t steps, float* y) {
  constexpr int64_t kStride = kTilesRows * sizeof(float), kHalf = kSide * kTilesRows;
  _tile_loadd(0, y, kStride);
  _tile_loadd(1, y + kSide, kStride);
  if constexpr (A > 1) {
    _tile_loadd(2, y + kHalf, kStride);
    _tile_loadd(3, y + kHalf + kSide, kStride);
  }
  for (int64_t s = 0; s < steps; ++s, x += kMaxTerms * kPairWords)
    for (int j = 0; j < w_terms; ++j, w += kPairWords) {
      _tile_loadd(6, w, 64);
      _tile_loadd(7, w + kTileWords, 64);
      for (int i = 0; i + j < kMaxTerms; ++i) {
        const uint32_t* at = x + i * kPairWords;
        _tile_loadd(4, at, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (A > 1) {
          _tile_loadd(5, at + kTileWords, 64);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
    }
  _tile_stored(0, y, kStride);
  _tile_stored(1, y + kSide, kStride);
  if constexpr (A > 1) {
    _tile_stored(2, y + kHalf, kStride);
    _tile_stored(3, y + kHalf + kSide, kStride);
  }
}

void micro(const uint32_t* x, int rows, const uint32_t* w, int w_terms, int64_t steps, float* y) noexcept {
  (rows > kSide ? multiply<2> : multiply<1>)(x, w, w_terms, steps, y);
}

}  // namespace

const Tiles kAmxTiles = {pack_x, pack_w, micro, begin, end};

}  // namespace statera::kernels::tile
