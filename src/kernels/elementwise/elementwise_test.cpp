// Elementwise kernels against their definitions in double and against the scalar file, on every instruction set, for ragged rows.
#include "kernels/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/isa_test.h"

namespace statera::kernels::elementwise {
namespace {

constexpr int64_t kWidths[] = {1, 3, 7, 8, 16, 17, 40, 64, 100, 1543};
constexpr float kSentinel = 12345.0f;

// n normal numbers as a type holds them, with what they are worth; not a byte more is allocated.
struct Stored {
  std::vector<float> values;
  std::vector<uint16_t> halves;
  Vector vector;
  Stored(int64_t n, Type type, unsigned seed) {
    values = normal(static_cast<size_t>(n), seed);
    if (type == Type::f32) {
      vector = {values.data(), type};
      return;
    }
    for (float& v : values) {
      v = std::round(v * 16) / 16;  // exact in both types
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      const uint16_t f16 = v == 0 ? 0 : static_cast<uint16_t>((bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023));
      halves.push_back(type == Type::bf16 ? static_cast<uint16_t>(bits >> 16) : f16);
    }
    vector = {halves.data(), type};
  }
};

TEST(Elementwise, NormsEqualTheirDefinitionsForEveryTypeOfWeights) {
  for_each_isa([] {
    for (int64_t n : kWidths) {
      for (Type type : {Type::f32, Type::bf16, Type::f16}) {
        const int64_t rows = 3, ldx = n + 2;
        auto x = normal(static_cast<size_t>(rows * ldx), 1);
        for (float& v : x) v = v * 3 + 1;
        const Stored w(n, type, 2), b(n, type, 3);
        std::vector<float> rms(static_cast<size_t>(rows * n) + 1, kSentinel), layer = rms;
        table().rms_norm(x.data(), ldx, rows, n, w.vector, 1e-5f, rms.data());
        table().layer_norm(x.data(), ldx, rows, n, w.vector, b.vector, 1e-5f, layer.data());
        for (int64_t r = 0; r < rows; ++r) {
          double mean = 0, squares = 0, variance = 0;
          for (int64_t i = 0; i < n; ++i) {
            const double v = x[static_cast<size_t>(r * ldx + i)];
            mean += v / static_cast<double>(n);
            squares += v * v / static_cast<double>(n);
          }
          for (int64_t i = 0; i < n; ++i) variance += std::pow(x[static_cast<size_t>(r * ldx + i)] - mean, 2) / static_cast<double>(n);
          for (int64_t i = 0; i < n; ++i) {
            const double v = x[static_cast<size_t>(r * ldx + i)], weight = w.values[static_cast<size_t>(i)], bias = b.values[static_cast<size_t>(i)];
            ASSERT_NEAR(rms[static_cast<size_t>(r * n + i)], v / std::sqrt(squares + 1e-5) * weight, 1e-5) << n;
            // one element has no variance: its mean's rounding is divided by sqrt(eps)
            ASSERT_NEAR(layer[static_cast<size_t>(r * n + i)], (v - mean) / std::sqrt(variance + 1e-5) * weight + bias, 2e-5) << n;
          }
        }
        ASSERT_EQ(rms.back(), kSentinel);
        ASSERT_EQ(layer.back(), kSentinel);
      }
    }
  });
}

double definition(Act act, double x) {
  switch (act) {
    case Act::silu: return x / (1 + std::exp(-x));
    case Act::gelu: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Act::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Act::quick_gelu: return x / (1 + std::exp(-1.702 * x));
    case Act::relu: return x < 0 ? 0 : x;
  }
  return NAN;
}
constexpr Act kActs[] = {Act::silu, Act::gelu, Act::gelu_tanh, Act::quick_gelu, Act::relu};

TEST(Elementwise, ActivationFunctionsKeepTheirErrorBoundEverywhere) {
  std::vector<float> x;
  for (float v = -30; v < 30; v += 0.00371f) x.push_back(v);
  for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e4f, -1e4f, 3e38f, -3e38f}) x.push_back(v);
  for_each_isa([&] {
    std::vector<float> y(x.size());
    for (Act act : kActs) {
      table().activate(act, x.data(), 0, nullptr, 0, 1, static_cast<int64_t>(x.size()), y.data(), 0);
      for (size_t i = 0; i < x.size(); ++i)
        ASSERT_NEAR(y[i], definition(act, x[i]), 0x1p-21 * std::max(1.0f, std::fabs(x[i]))) << static_cast<int>(act) << " of " << x[i];
    }
  });
}

TEST(Elementwise, ActivatedRowsAreMultipliedAndMayLieApart) {
  for_each_isa([] {
    for (int64_t n : kWidths) {
      const int64_t rows = 3, ldx = 2 * n, ldy = n + 3;
      const auto x = normal(static_cast<size_t>(rows * ldx), 4);
      for (Act act : kActs) {
        std::vector<float> y(static_cast<size_t>(rows * ldy), kSentinel);
        table().activate(act, x.data(), ldx, x.data() + n, ldx, rows, n, y.data(), ldy);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t i = 0; i < ldy; ++i) {
            const float got = y[static_cast<size_t>(r * ldy + i)];
            if (i >= n) {
              ASSERT_EQ(got, kSentinel);
            } else {
              ASSERT_NEAR(got, definition(act, x[static_cast<size_t>(r * ldx + i)]) * x[static_cast<size_t>(r * ldx + n + i)], 2e-5);
            }
          }
      }
    }
  });
}

TEST(Elementwise, WhatIsNoNumberStaysSo) {
  for_each_isa([] {
    for (Act act : kActs) {
      std::vector<float> x(16, 1.0f);
      x[5] = NAN;
      table().activate(act, x.data(), 16, nullptr, 0, 1, 16, x.data(), 16);
      for (size_t i = 0; i < 16; ++i) ASSERT_EQ(std::isnan(x[i]), i == 5) << static_cast<int>(act);
    }
  });
}

TEST(Elementwise, SumsAndBiasesAreExact) {
  for_each_isa([] {
    for (int64_t n : kWidths) {
      const auto a = normal(static_cast<size_t>(n), 5), b = normal(static_cast<size_t>(n), 6);
      std::vector<float> y(static_cast<size_t>(n) + 1, kSentinel);
      table().add(a.data(), b.data(), n, y.data());
      for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(y[i], a[i] + b[i]);
      ASSERT_EQ(y.back(), kSentinel);
      for (Type type : {Type::f32, Type::bf16, Type::f16}) {
        const Stored bias(n, type, 7);
        std::vector<float> rows(static_cast<size_t>(2 * n) + 2, kSentinel);  // one element apart
        for (int64_t r = 0; r < 2; ++r) std::copy(a.begin(), a.end(), rows.begin() + r * (n + 1));
        table().add_bias(rows.data(), n + 1, 2, n, bias.vector);
        for (int64_t r = 0; r < 2; ++r) {
          for (int64_t i = 0; i < n; ++i) ASSERT_EQ(rows[static_cast<size_t>(r * (n + 1) + i)], a[static_cast<size_t>(i)] + bias.values[static_cast<size_t>(i)]);
          ASSERT_EQ(rows[static_cast<size_t>(r * (n + 1) + n)], kSentinel);
        }
      }
    }
  });
}

TEST(Elementwise, RotationTurnsTheFirstDimensionsByHalves) {
  for_each_isa([] {
    const std::pair<int64_t, int64_t> widths[] = {{8, 8}, {80, 80}, {128, 128}, {96, 32}, {72, 72}, {20, 6}};
    for (const auto& [d, r] : widths) {
      const int64_t heads = 3, ldx = d + 5;
      const auto x = normal(static_cast<size_t>(heads * ldx), 8), cos = normal(static_cast<size_t>(r), 9), sin = normal(static_cast<size_t>(r), 10);
      std::vector<float> y(static_cast<size_t>(heads * d) + 1, kSentinel);
      table().rope(x.data(), ldx, heads, d, r, cos.data(), sin.data(), y.data());
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t j = 0; j < d; ++j) {
          const float* row = x.data() + h * ldx;
          const double other = j < r / 2 ? -row[j + r / 2] : j < r ? row[j - r / 2] : 0;
          const double want = j < r ? double{row[j]} * cos[static_cast<size_t>(j)] + other * sin[static_cast<size_t>(j)] : row[j];
          ASSERT_NEAR(y[static_cast<size_t>(h * d + j)], want, 2e-6) << d << " " << r << " " << j;
        }
      ASSERT_EQ(y.back(), kSentinel);
    }
  });
}

// Maximum 0 on entry and scores below: what is left is exp itself.
TEST(Elementwise, ExpKeepsItsErrorBound) {
  for_each_isa([] {
    const int64_t begin = 0, end = kLanes;
    for (float x = -120; x <= 0; x += 0.01037f) {
      std::vector<float> s(kLanes, x);
      float most = 0, total = 0, factor;
      table().softmax(s.data(), kLanes, 1, kLanes, &begin, &end, &most, &total, &factor);
      const double want = std::exp(double{x});
      ASSERT_NEAR(s[3], want, x < -87 ? 0x1p-126 : 0x1p-22 * want) << x;
      ASSERT_TRUE(s[3] == 0 || std::isnormal(s[3])) << x;  // others are slow
      ASSERT_EQ(factor, 1.0f);
    }
  });
}

TEST(Elementwise, SoftmaxStepByStepEqualsTheWhole) {
  for_each_isa([] {
    constexpr int64_t kRow = 128, kRows = 3;
    for (int64_t count : {1, 15, 16, 33, 100, 128}) {
      const auto scores = normal(kRows * kRow * 2, 11);
      float most[kRows] = {kHidden, kHidden, kHidden}, total[kRows] = {}, factor[kRows];
      double want[kRows] = {}, top[kRows] = {-INFINITY, -INFINITY, -INFINITY};
      for (int64_t step = 0; step < 2; ++step) {
        // the second row meets its first visible key in the second block, the last row none in that
        const int64_t begin[kRows] = {step ? -5 : 0, step ? 0 : count, 0}, end[kRows] = {count, count, step ? -3 : (count + 1) / 2};
        std::vector<float> s(scores.begin() + step * kRows * kRow, scores.begin() + (step + 1) * kRows * kRow);
        for (float& v : s) v *= 10;
        for (int64_t r = 0; r < kRows; ++r)
          for (int64_t j = std::max<int64_t>(0, begin[r]); j < end[r]; ++j) {
            const double v = s[static_cast<size_t>(r * kRow + j)], higher = std::max(top[r], v);
            want[r] = want[r] * std::exp(top[r] - higher) + std::exp(v - higher);
            top[r] = higher;
          }
        const auto before = s;
        table().softmax(s.data(), kRow, kRows, count, begin, end, most, total, factor);
        for (int64_t r = 0; r < kRows; ++r)
          for (int64_t j = 0; j < count; ++j) {
            const auto at = static_cast<size_t>(r * kRow + j);
            const double e = j >= begin[r] && j < end[r] ? std::exp(double{before[at]} - most[r]) : 0.0;
            ASSERT_NEAR(s[at], e, 1e-5 * e) << r << " " << j;
          }
        if (step == 0) ASSERT_EQ(total[1], 0.0f) << "a row that has seen nothing";
      }
      for (int64_t r = 0; r < kRows; ++r) {
        ASSERT_EQ(most[r], static_cast<float>(top[r]));
        ASSERT_NEAR(total[r], want[r], 1e-5 * want[r]);
      }
    }
  });
}

TEST(Elementwise, RowsAreScaledInPlaceOrElsewhere) {
  for_each_isa([] {
    for (int64_t n : kWidths) {
      auto x = normal(static_cast<size_t>(2 * n), 12);
      const float factor[2] = {0.3f, 1};
      std::vector<float> y(static_cast<size_t>(2 * n) + 1, kSentinel);
      table().scale_rows(x.data(), n, 2, n, factor, y.data(), n);
      for (int64_t i = 0; i < 2 * n; ++i) ASSERT_EQ(y[static_cast<size_t>(i)], x[static_cast<size_t>(i)] * factor[i / n]);
      ASSERT_EQ(y.back(), kSentinel);
      table().scale_rows(x.data(), n, 2, n, factor, x.data(), n);
      y.pop_back();
      ASSERT_EQ(x, y);
    }
  });
}

}  // namespace
}  // namespace statera::kernels::elementwise
