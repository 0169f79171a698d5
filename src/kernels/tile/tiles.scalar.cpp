// The specification.
#include "kernels/tile/tiles.h"

namespace statera::kernels::tile {
namespace {

constexpr int kSide = 16;
constexpr int64_t kTileWords = kSide * kSide;

union Number {
  float f;
  uint32_t u;
};

// The next term of what is left, as the upper half of a word, and what is left then.
uint32_t take(float& left) {
  Number v{left};
  const bool odd = (v.u & 0x7f800000) == 0x7f800000, nan = odd && (v.u & 0x007fffff);
  v.u &= 0xffff0000;
  if (nan) v.u |= 0x00400000;
  left = odd ? 0 : left - v.f;
  return v.u;
}

float number(uint32_t upper_half) {
  Number v;
  v.u = upper_half;
  return v.f;
}

void pack_x(const float* x, int64_t ldx, int rows, int64_t k, uint32_t* out) noexcept {
  for (int64_t s = 0; s * kStep < k; ++s)
    for (int r = 0; r < kTilesRows; ++r)
      for (int i = 0; i < kSide; ++i) {
        float left[2];
        for (int h = 0; h < 2; ++h) left[h] = r < rows && s * kStep + 2 * i + h < k ? x[r * ldx + s * kStep + 2 * i + h] : 0;
        for (int t = 0; t < kMaxTerms; ++t) {
          const uint32_t low = take(left[0]) >> 16;
          out[(s * kMaxTerms + t) * kPairWords + r / kSide * kTileWords + r % kSide * kSide + i] = low | take(left[1]);
        }
      }
}

int pack_w(const float* w, int64_t ldw, int blocks, int64_t k, uint32_t* out) noexcept {
  const auto at = [&](int b, int64_t i, int c) { return b < blocks && i < k ? w[b * ldw + i * kSide + c] : 0; };
  const auto terms_of = [&](float x) {
    int n = 0;
    for (int t = 0; t < kMaxTerms; ++t)
      if (take(x)) n = t + 1;
    return n;
  };
  int needed = 1;
  for (int b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < k; ++i)
      for (int c = 0; c < kSide; ++c)
        if (const int n = terms_of(at(b, i, c)); n > needed) needed = n;
  for (int64_t s = 0; s * kStep < k; ++s)
    for (int b = 0; b < 2; ++b)
      for (int i = 0; i < kSide; ++i)
        for (int c = 0; c < kSide; ++c) {
          float even = at(b, s * kStep + 2 * i, c), odd = at(b, s * kStep + 2 * i + 1, c);
          for (int t = 0; t < needed; ++t) {
            const uint32_t low = take(even) >> 16;
            out[(s * needed + t) * kPairWords + b * kTileWords + i * kSide + c] = low | take(odd);
          }
        }
  return needed;
}

void micro(const uint32_t* x, int rows, const uint32_t* w, int w_terms, int64_t steps, float* y) noexcept {
  const int read = rows > kSide ? kTilesRows : kSide;
  for (int64_t s = 0; s < steps; ++s)
    for (int j = 0; j < w_terms; ++j)
      for (int i = 0; i + j < kMaxTerms; ++i)
        for (int r = 0; r < read; ++r)
          for (int c = 0; c < kTilesRows; ++c) {
            const uint32_t* a = x + (s * kMaxTerms + i) * kPairWords + r / kSide * kTileWords + r % kSide * kSide;
            const uint32_t* b = w + (s * w_terms + j) * kPairWords + c / kSide * kTileWords + c % kSide;
            float even = 0, odd = 0;
            for (int p = 0; p < kSide; ++p) {
              even += number(a[p] << 16) * number(b[p * kSide] << 16);
              odd += number(a[p] & 0xffff0000) * number(b[p * kSide] & 0xffff0000);
            }
            y[r * kTilesRows + c] += even + odd;
          }
}

}  // namespace

const Tiles kScalarTiles = {pack_x, pack_w, micro, nullptr, nullptr};

}  // namespace statera::kernels::tile
