// Every instruction set against the specification, to the bit, and that against the definition.
#include "kernels/rounding/rounding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/isa_test.h"

namespace statera::kernels::rounding {
namespace {

constexpr Type kTypes[] = {Type::f32, Type::bf16, Type::f16};
constexpr Mode kModes[] = {Mode::symmetric, Mode::with_zero, Mode::before_zero};
constexpr int64_t kCounts[] = {1, 7, 15, 16, 17, 32, 100, 128};

struct Answer {
  std::vector<int8_t> q;
  Sums sums;
};

Answer codes_by(const Table& t, const Grid& g, const std::vector<float>& x) {
  Answer a{std::vector<int8_t>(x.size() + 1, 99), {0.5, 0.25}};
  t.codes(g, x.data(), static_cast<int64_t>(x.size()), a.q.data(), a.sums);
  return a;
}

Grid grid(Type type, Mode mode) { return {type, mode, 0.234375f, mode == Mode::symmetric ? 0.0f : -3.0f, -8.0f, 7.0f}; }

TEST(Rounding, CodesAndSumsEqualTheSpecification) {
  for_each_isa([] {
    for (Type type : kTypes)
      for (Mode mode : kModes)
        for (int64_t count : kCounts) {
          const auto x = normal(static_cast<size_t>(count), static_cast<unsigned>(count));
          const Answer want = codes_by(kScalar, grid(type, mode), x), got = codes_by(table(), grid(type, mode), x);
          ASSERT_EQ(got.q, want.q) << count;
          ASSERT_EQ(got.q.back(), 99) << "wrote past the row";
          ASSERT_EQ(got.sums.error, want.sums.error) << count;
          ASSERT_EQ(got.sums.weight, want.sums.weight) << count;
        }
  });
}

TEST(Rounding, CodesAreTheNearestOnTheGrid) {
  const auto x = normal(128, 5);
  for (Mode mode : kModes) {
    const Grid g = grid(Type::f32, mode);
    const Answer a = codes_by(kScalar, g, x);
    double error = 0.5;
    for (size_t i = 0; i < x.size(); ++i) {
      const float nearest = mode == Mode::with_zero ? std::nearbyint(x[i] / g.scale + g.zero) : std::nearbyint(x[i] / g.scale) + g.zero;
      ASSERT_EQ(a.q[i], std::clamp(nearest, g.least, g.most)) << i;
      error += std::pow((static_cast<double>(a.q[i]) - g.zero) * g.scale - x[i], 2);
    }
    EXPECT_NEAR(a.sums.error, error, 1e-5 * error);
  }
}

TEST(Rounding, RangesAreOfAllAndSeeWhatIsNotFinite) {
  for_each_isa([] {
    for (int64_t count : kCounts) {
      auto x = normal(static_cast<size_t>(count), static_cast<unsigned>(count) + 1);
      for (float start : {0.0f, x[0]}) {
        const Range r = table().range(x.data(), count, start);
        EXPECT_EQ(r.low, std::min(start, *std::min_element(x.begin(), x.end())));
        EXPECT_EQ(r.high, std::max(start, *std::max_element(x.begin(), x.end())));
        EXPECT_TRUE(r.finite);
      }
      for (float odd : {NAN, INFINITY, -INFINITY})
        for (size_t at : {size_t{0}, x.size() / 2, x.size() - 1}) {
          auto bad = x;
          bad[at] = odd;
          EXPECT_FALSE(table().range(bad.data(), count, 0).finite) << odd << " at " << at << "/" << count;
        }
      EXPECT_FALSE(table().range(x.data(), count, NAN).finite);
    }
  });
}

TEST(Rounding, WideningIsExactForEveryHalfValue) {
  for_each_isa([] {
    std::vector<uint16_t> all(65536);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    std::vector<float> wide(all.size());
    table().widen(all.data(), Type::bf16, 65536, wide.data());
    for (uint32_t i = 0; i < 65536; ++i) ASSERT_EQ(std::memcmp(&wide[i], std::vector<uint32_t>{i << 16}.data(), 4), 0) << i;
    table().widen(all.data(), Type::f16, 65536, wide.data());
    for (uint32_t i = 0; i < 65536; ++i) {
      const int exponent = static_cast<int>(i >> 10 & 31), fraction = static_cast<int>(i & 1023);
      if (exponent == 31) {
        ASSERT_TRUE(fraction ? std::isnan(wide[i]) : std::isinf(wide[i])) << i;
        continue;
      }
      const float magnitude = std::ldexp(static_cast<float>(exponent ? 1024 + fraction : fraction), (exponent ? exponent : 1) - 25);
      ASSERT_EQ(wide[i], i & 0x8000 ? -magnitude : magnitude) << i;
    }
    const auto x = normal(33, 2);
    table().widen(x.data(), Type::f32, 33, wide.data());
    ASSERT_TRUE(std::equal(x.begin(), x.end(), wide.begin()));
  });
}

}  // namespace
}  // namespace statera::kernels::rounding
