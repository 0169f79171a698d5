// Numbers in terms, and products of terms by tiles against sums in double: the specification, AMX's kernel on emulated tiles, and on real ones where
// the machine has them. Whole products on tiles: hgemm_test.cpp and qgemm_test.cpp.
#include "kernels/tile/tiles.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "kernels/isa_test.h"

namespace statera::kernels::tile {

extern const Tiles kAmxTilesTwin;

namespace {

float number(uint32_t upper_half) { return std::bit_cast<float>(upper_half); }

std::vector<const Tiles*> all_tiles() {
  std::vector<const Tiles*> all = {&kScalarTiles};
  if (isa_supported(Isa::avx512)) all.push_back(&kAmxTilesTwin);
  if (isa_supported(Isa::amx)) all.push_back(&kAmxTiles);
  return all;
}

// Element (row, k) of term t of a pack of x.
float term_of(const std::vector<uint32_t>& pack, int row, int64_t k, int t) {
  const uint32_t word = pack[static_cast<size_t>((k / kStep * kMaxTerms + t) * kPairWords + row * 16 + k % kStep / 2)];
  return number(k % 2 ? word & 0xffff0000 : word << 16);
}

TEST(Tiles, TermsAddUpToTheNumber) {
  auto x = normal(32 * 70, 1);
  x[0] = 0, x[1] = -0.0f, x[2] = INFINITY, x[3] = -INFINITY, x[4] = 3.4e38f, x[5] = 1e-20f, x[6] = std::bit_cast<float>(0x7f800001u), x[7] = 1.0f;
  for (const Tiles* t : all_tiles()) {
    std::vector<uint32_t> pack(static_cast<size_t>(3 * kMaxTerms * kPairWords), 0x7fc07fc0);
    t->pack_x(x.data(), 70, 31, 70, pack.data());
    for (int row = 0; row < 32; ++row)
      for (int64_t k = 0; k < 96; ++k) {
        const float first = term_of(pack, row, k, 0), second = term_of(pack, row, k, 1), third = term_of(pack, row, k, 2);
        const float want = row < 31 && k < 70 ? x[static_cast<size_t>(row * 70 + k)] : 0;
        if (std::isnan(want)) {
          ASSERT_TRUE(std::isnan(first));
        } else {
          ASSERT_EQ(first + (second + third), want) << row << "," << k;
        }
        if (!std::isfinite(want)) {
          ASSERT_TRUE(second == 0 && third == 0);
        }
      }
  }
}

TEST(Tiles, WeightsTakeTheTermsThatTheyNeed) {
  std::vector<float> w(2 * 40 * 16, 1.5f);
  for (const Tiles* t : all_tiles()) {
    std::vector<uint32_t> pack(static_cast<size_t>(2 * kMaxTerms * kPairWords));
    const auto terms = [&](float one) {
      w[700] = one;
      return t->pack_w(w.data(), 40 * 16, 2, 40, pack.data());
    };
    EXPECT_EQ(terms(0), 1);
    EXPECT_EQ(terms(-3.0f), 1);
    EXPECT_EQ(terms(257.0f), 2);
    EXPECT_EQ(terms(65793.0f), 3);
    EXPECT_EQ(t->pack_w(w.data(), 40 * 16, 1, 40, pack.data()), 1) << "the other block is not looked at";
  }
}

TEST(Tiles, ProductsAreThoseOfF32) {
  for (const Tiles* t : all_tiles())
    for (int bits : {8, 16, 24})
      for (int rows : {1, 16, 17, 32})
        for (int64_t k : {1, 31, 64, 77}) {
          const auto x = normal(static_cast<size_t>(rows * k), 2);
          auto w = normal(static_cast<size_t>(2 * k * 16), 3);
          for (float& v : w) v = std::bit_cast<float>(std::bit_cast<uint32_t>(v) & ~0u << (24 - bits));
          const int64_t steps = (k + kStep - 1) / kStep;
          std::vector<uint32_t> xp(static_cast<size_t>(steps * kMaxTerms * kPairWords)), wp(xp.size());
          t->pack_x(x.data(), k, rows, k, xp.data());
          const int terms = t->pack_w(w.data(), k * 16, 2, k, wp.data());
          ASSERT_LE(terms, (bits + 7) / 8);
          std::vector<float> y(kTilesRows * kTilesRows, 0.25f);
          if (t->begin) t->begin();
          t->micro(xp.data(), rows, wp.data(), terms, steps, y.data());
          if (t->end) t->end();
          for (int r = 0; r < kTilesRows; ++r)
            for (int c = 0; c < kTilesRows; ++c) {
              double want = 0.25, size = 0.25;
              for (int64_t i = 0; r < rows && i < k; ++i) {
                const double one = double{x[static_cast<size_t>(r * k + i)]} * w[static_cast<size_t>((c / 16 * k + i) * 16 + c % 16)];
                want += one;
                size += std::abs(one);
              }
              ASSERT_NEAR(y[static_cast<size_t>(r * kTilesRows + c)], want, size * 4e-7) << rows << " rows, k " << k << ", " << bits << " bits at " << r << "," << c;
            }
        }
}

}  // namespace
}  // namespace statera::kernels::tile
