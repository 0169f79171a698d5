// Moments in 8 and 16 bits: the table of magnitudes, rounding by chance that keeps means, blocks with their scales.
#include "train/state_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace statera {
namespace {

TEST(Magnitudes, RiseFromZeroToOneWithMoreOfThemInEachDecade) {
  for (const int bits : {7, 8}) {
    const Magnitudes table(bits);
    ASSERT_EQ(table.size(), 1 << bits);
    EXPECT_EQ(table.value(0), 0);
    EXPECT_EQ(table.value(static_cast<unsigned>(table.size()) - 1), 1);
    std::vector<int> decades(8, 0);
    for (unsigned c = 1; c < static_cast<unsigned>(table.size()); ++c) {
      EXPECT_GT(table.value(c), table.value(c - 1));
      const double above = std::ceil(std::log10(static_cast<double>(table.value(c))) - 1e-6);  // of (0.01, 0.1]: -1
      ++decades[static_cast<size_t>(-above)];
    }
    for (size_t d = 0; d < 7; ++d) EXPECT_EQ(decades[d], (bits == 7 ? 64 : 128) >> d) << bits;
  }
}

TEST(Magnitudes, ACodeIsTheNeighbourThatChanceNames) {
  for (const int bits : {7, 8}) {
    const Magnitudes table(bits);
    std::vector<float> values;
    for (int c = 0; c < table.size(); ++c) values.push_back(table.value(static_cast<unsigned>(c)));
    const Rng rng(5);
    for (uint64_t i = 0; i < 20000; ++i) {
      const auto x = static_cast<float>(std::pow(10.0, -9 * rng.uniform_at(2 * i)));
      const auto chance = static_cast<float>(rng.uniform_at(2 * i + 1));
      const auto below = static_cast<size_t>(std::upper_bound(values.begin(), values.end(), x) - values.begin()) - 1;
      const bool up = below + 1 < values.size() && x - values[below] > chance * (values[below + 1] - values[below]);
      ASSERT_EQ(table.code(x, chance), below + up) << x << " " << chance;
    }
    for (int c = 0; c < table.size(); ++c) EXPECT_EQ(table.code(values[static_cast<size_t>(c)], 0), static_cast<unsigned>(c));  // exact ones stay
  }
}

std::vector<uint64_t> draws(uint64_t key, int64_t n) {
  std::vector<uint64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(Rng(key).at(static_cast<uint64_t>(i)));
  return out;
}

std::vector<float> decoded(bool second, const std::vector<float>& x, uint64_t key = 0) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> codes(x.size());
  std::vector<float> out(x.size());
  if (second) {
    decode_second(codes.data(), encode_second(x.data(), draws(key, n).data(), n, codes.data()), n, out.data());
  } else {
    decode_first(codes.data(), encode_first(x.data(), n, codes.data()), n, out.data());
  }
  return out;
}

std::vector<float> moments() {
  std::vector<float> out;
  for (int i = 0; i < 100; ++i) out.push_back(static_cast<float>(std::sin(i * 1.7) * std::pow(10.0, -(i % 4))));
  return out;
}

TEST(StateCodes, FirstMomentsAreTheNearestMagnitudesOfTheirScale) {
  const std::vector<float> m = moments(), read = decoded(false, m);
  float scale = 0;
  for (float x : m) scale = std::max(scale, std::fabs(x));
  for (size_t i = 0; i < m.size(); ++i) {
    float nearest = 1e30f;
    for (unsigned c = 0; c < 128; ++c) nearest = std::min(nearest, std::fabs(std::fabs(m[i]) - Magnitudes(7).value(c) * scale));
    EXPECT_NEAR(std::fabs(m[i] - read[i]), nearest, 1e-6 * scale) << i;
    EXPECT_GE(m[i] * read[i], 0) << i;
  }
}

TEST(StateCodes, RootsOfSecondMomentsAreRightInTheMean) {
  constexpr int kDraws = 3000;
  std::vector<float> v;
  for (float m : moments()) v.push_back(m * m);
  std::vector<double> mean(v.size(), 0);
  for (uint64_t key = 0; key < kDraws; ++key) {
    const std::vector<float> read = decoded(true, v, key);
    for (size_t i = 0; i < v.size(); ++i) mean[i] += std::sqrt(read[i]) / kDraws;
  }
  // Six deviations of a mean where neighbours lie farthest apart, by more than the lower of them.
  for (size_t i = 0; i < v.size(); ++i) EXPECT_NEAR(mean[i], std::sqrt(v[i]), 0.06 * std::sqrt(v[i]) + 1e-7) << i;
}

TEST(StateCodes, LargestAndZeroAreExactAndSecondMomentsNeverVanish) {
  for (uint64_t key = 0; key < 50; ++key) {
    const std::vector<float> m = decoded(false, {0, -3, 1e-12f, 0.5f}), v = decoded(true, {0, 7, 1e-30f, 4}, key);
    EXPECT_EQ(m[0], 0);
    EXPECT_EQ(m[1], -3);
    EXPECT_EQ(v[0], 0);
    EXPECT_EQ(v[1], 7);
    EXPECT_GT(v[2], 0);
  }
}

TEST(StateCodes, BlocksOfZerosAndOfTheLeastFloatsKeepTheirValues) {
  for (const float x : {0.0f, 1e-42f}) {
    const std::vector<float> block(kStateBlock, x);
    EXPECT_EQ(decoded(false, block), block);
    EXPECT_EQ(decoded(true, block), block);
  }
}

TEST(StateCodes, Bf16RoundsToTheNearestOrUpAsOftenAsTheRestSays) {
  const auto bits = std::bit_cast<uint32_t>(1.0f) + 0x4000u;  // a quarter of the way to the next bf16
  int up = 0;
  for (uint64_t draw = 0; draw < 0x10000; ++draw) up += chance_bf16(bits, draw) == 0x3F81;
  EXPECT_EQ(up, 0x4000);
  for (uint64_t draw : {0ull, 0xFFFFFull}) EXPECT_EQ(chance_bf16(std::bit_cast<uint32_t>(-2.5f), draw), 0xC020);
  EXPECT_EQ(nearest_bf16(bits), 0x3F80);
  EXPECT_EQ(nearest_bf16(0x3F808001u), 0x3F81);
  EXPECT_EQ(nearest_bf16(0x3F808000u), 0x3F80);  // half to even
  EXPECT_EQ(nearest_bf16(0x3F818000u), 0x3F82);
}

TEST(StateCodes, AnUnknownNameIsRefusedWithTheNearest) {
  EXPECT_EQ(parse_state_bits("8bit"), StateBits::eight);
  try {
    parse_state_bits("8bits");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("did you mean \"8bit\""), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace statera
