// Exact laws of the bit budget, and brute force on small ones.
#include "quant/recipes/bit_budget.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace statera {
namespace {

uint64_t bytes_of(const std::vector<BitLevels>& sets, const std::vector<size_t>& chosen) {
  uint64_t sum = 0;
  for (size_t s = 0; s < sets.size(); ++s) sum += sets[s][chosen[s]].bytes;
  return sum;
}

double error_of(const std::vector<BitLevels>& sets, const std::vector<size_t>& chosen) {
  double sum = 0;
  for (size_t s = 0; s < sets.size(); ++s) sum += sets[s][chosen[s]].error;
  return sum;
}

// Sets of random sizes and noisy curves, some of which are not even convex.
std::vector<BitLevels> random_sets(uint64_t seed, size_t count) {
  Rng rng(seed, 7);
  uint64_t draw = 0;
  std::vector<BitLevels> out;
  for (size_t s = 0; s < count; ++s) {
    const uint64_t weights = 64 * (1 + static_cast<uint64_t>(std::abs(rng.normal_at(draw++)) * 20));
    const double scale = std::abs(rng.normal_at(draw++)) + 0.1;
    BitLevels levels;
    for (int bits : {2, 3, 4, 5, 6, 8}) {
      const double noise = std::exp(0.8 * rng.normal_at(draw++));
      levels.push_back({bits, weights * static_cast<uint64_t>(bits) / 8 + 16, scale * static_cast<double>(weights) * noise * std::pow(4.0, -bits)});
    }
    out.push_back(levels);
  }
  return out;
}

TEST(BitBudget, IsNeverExceededAndMoreOfItNeverMeansMoreError) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto sets = random_sets(seed, 12);
    const uint64_t least = bytes_of(sets, std::vector<size_t>(sets.size(), 0)), most = bytes_of(sets, std::vector<size_t>(sets.size(), 5));
    double last = INFINITY;
    for (uint64_t budget = least; budget <= most + 100; budget += 37) {
      const auto chosen = spend_bits(sets, budget);
      EXPECT_LE(bytes_of(sets, chosen), budget);
      EXPECT_LE(error_of(sets, chosen), last);
      last = error_of(sets, chosen);
    }
  }
}

TEST(BitBudget, NoChoiceOfAsManyBytesHasLessError) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const auto sets = random_sets(seed, 5);
    const uint64_t least = bytes_of(sets, std::vector<size_t>(5, 0)), most = bytes_of(sets, std::vector<size_t>(5, 5));
    for (int part = 0; part <= 10; ++part) {
      const auto chosen = spend_bits(sets, least + (most - least) * static_cast<uint64_t>(part) / 10);
      const uint64_t spent = bytes_of(sets, chosen);
      const double error = error_of(sets, chosen);
      for (size_t code = 0; code < 6 * 6 * 6 * 6 * 6; ++code) {
        std::vector<size_t> other;
        for (size_t s = 0, rest = code; s < 5; ++s, rest /= 6) other.push_back(rest % 6);
        if (bytes_of(sets, other) > spent) continue;
        EXPECT_GE(error_of(sets, other), error * (1 - 1e-12));
      }
    }
  }
}

TEST(BitBudget, EqualSensitivitiesGiveEqualBitsWhateverTheSizes) {
  std::vector<BitLevels> sets;
  for (uint64_t weights : {uint64_t{1024}, uint64_t{4096}, uint64_t{65536}}) {
    BitLevels levels;
    for (int bits : {2, 3, 4, 5, 6, 8})
      levels.push_back({bits, weights * static_cast<uint64_t>(bits) / 8, static_cast<double>(weights) * std::ldexp(1.0, -2 * bits)});
    sets.push_back(levels);
  }
  for (uint64_t budget = bytes_of(sets, {0, 0, 0}); budget <= bytes_of(sets, {5, 5, 5}); budget += 101) {
    const auto chosen = spend_bits(sets, budget);
    EXPECT_EQ(chosen[0], chosen[1]);
    EXPECT_EQ(chosen[1], chosen[2]);
  }
  EXPECT_EQ(spend_bits(sets, bytes_of(sets, {2, 2, 2})), (std::vector<size_t>{2, 2, 2}));
  EXPECT_EQ(spend_bits(sets, bytes_of(sets, {2, 2, 2}) - 1), (std::vector<size_t>{1, 1, 1}));
}

TEST(BitBudget, TheMoreSensitiveSetGetsMore) {
  const BitLevels low = {{2, 200, 1}, {4, 400, 0.1}, {8, 800, 0.01}}, high = {{2, 200, 50}, {4, 400, 5}, {8, 800, 0.5}};
  const std::vector<BitLevels> sets = {low, high};
  EXPECT_EQ(spend_bits(sets, 650), (std::vector<size_t>{0, 1}));
  EXPECT_EQ(spend_bits(sets, 1000), (std::vector<size_t>{0, 2}));
  EXPECT_EQ(spend_bits(sets, 1600), (std::vector<size_t>{2, 2}));
}

TEST(BitBudget, LevelsThatSaveNothingAreNeverTaken) {
  const std::vector<BitLevels> sets = {{{2, 100, 1}, {3, 150, 1.5}, {4, 200, 1}}};
  EXPECT_EQ(spend_bits(sets, 1000), (std::vector<size_t>{0}));
}

TEST(BitBudget, TooSmallABudgetIsRefusedWithTheLeast) {
  const std::vector<BitLevels> sets = {{{2, 100, 1}}, {{2, 50, 1}}};
  try {
    spend_bits(sets, 149);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    EXPECT_NE(e.message().find("150"), std::string::npos);
  }
  EXPECT_EQ(spend_bits(sets, 150), (std::vector<size_t>{0, 0}));
}

}  // namespace
}  // namespace statera
