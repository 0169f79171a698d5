// Laws of i8gemm: sums are the exact integers on every instruction set, whatever bits, groups and shapes; scales follow the definition
// within a bound; quantization is bit-equal everywhere; ranges and threads equal the whole.
#include "kernels/i8gemm/i8gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/i8gemm/twins_test.h"
#include "kernels/isa_test.h"
#include "kernels/qgemm/case_test.h"

namespace statera::kernels::i8gemm {
namespace {

using qgemm::Case;
using qgemm::ScaleType;
using qgemm::Spec;

// Runs body under every supported set, then with what this machine would not choose: the twins of rare machines' kernels.
template <class F>
void for_each_kernels(F body) {
  for_each_isa(body);
  const auto with = [&](const char* name, Isa needs, Kernels kernels) {
    if (!isa_supported(needs)) {
      std::printf("  skipped: %s runs on machines with %s\n", name, std::string(isa_name(needs)).c_str());
      return;
    }
    SCOPED_TRACE(name);
    set_kernels(&kernels);
    body();
    set_kernels(nullptr);
  };
  if (cpu_has("avx_vnni")) with("AVX2 without VNNI", Isa::avx2, {&kAvx2, nullptr});
  with("the twin of AVX-VNNI", Isa::avx512, {&kAvx2, &kAvxVnniTwin});
  with("the twin of AMX", Isa::avx512, {&kAvx512, &kAmxTwin});
}

// Rows with memory of their own, and the codes in plain order beside.
struct Quantized {
  Rows rows;
  int64_t m;
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> minus_sum;
  Quantized(int64_t count, int64_t k, int64_t segment, int bits) : rows(rows_of(count, k, segment, bits)), m(count) {
    q.assign(rows.padded * rows.stride, 99);
    scale.assign(rows.padded * rows.segments, 5.0f);
    minus_sum.assign(rows.padded * rows.segments, 6);
    rows.q = q.data();
    rows.scale = scale.data();
    rows.minus_sum = minus_sum.data();
  }
  int64_t place(int64_t r, int64_t k) const {
    const int64_t w = rows.width, t = rows.together;
    if (rows.evens_first) k = k / 8 * 8 + k % 2 * 4 + k % 8 / 2;
    return r / w * w * rows.stride + k / t * t * w + r % w * t + k % t;
  }
  int code(int64_t r, int64_t k) const { return q[place(r, k)]; }
  // Codes as given, all scales 1.
  void set(const std::vector<int8_t>& codes) {
    std::fill(scale.begin(), scale.end(), 1.0f);
    std::fill(minus_sum.begin(), minus_sum.end(), 0);
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t k = 0; k < rows.stride; ++k) q[place(r, k)] = k < rows.k ? codes[r * rows.k + k] : 0;
      for (int64_t k = 0; k < rows.k; ++k) minus_sum[rows.at(r, k / rows.segment)] -= codes[r * rows.k + k];
    }
  }
};

std::vector<int8_t> bytes(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<int8_t> v(count);
  for (auto& b : v) b = static_cast<int8_t>(rng() % 8 == 0 ? (rng() % 2 ? -128 : 127) : static_cast<int>(rng() % 256) - 128);
  return v;
}

// Scales of 1 everywhere, so that the floats of y are the integers.
void expect_integers(const Case& c, int64_t m, int64_t x_group) {
  const Spec& s = c.spec;
  const int64_t segment = segment_of(s, x_group), ldy = s.n + 3;
  ASSERT_GT(segment, 0);
  Quantized x(m, s.k, segment, s.bits);
  x.set(bytes(m * s.k, 4));
  std::vector<float> y(m * ldy, 12345.0f);
  matmul(x.rows, m, c.packed.data(), s, nullptr, y.data(), ldy, 0, s.n);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t n = 0; n < s.n; ++n) {
      int32_t want = 0;
      for (int64_t k = 0; k < s.k; ++k) want += x.code(i, k) * c.integer(n, k);
      ASSERT_LT(std::abs(want), 1 << 24);
      ASSERT_EQ(y[i * ldy + n], static_cast<float>(want))
          << "bits " << s.bits << " group " << s.group << "/" << x_group << " k " << s.k << " m " << i << "/" << m << " n " << n;
    }
    for (int64_t n = s.n; n < ldy; ++n) ASSERT_EQ(y[i * ldy + n], 12345.0f) << "wrote past N";
  }
}

TEST(I8gemm, SumsAreTheExactIntegersForEveryRowCount) {
  for_each_kernels([] {
    for (int bits = 2; bits <= 8; ++bits)
      for (bool zeros : {false, true}) {
        const Case c({37, 200, bits, 64, zeros, ScaleType::f16}, 11, 1.0f);
        for (int64_t m = 1; m <= kMostDecodeRows + kTileRows + 2; ++m) expect_integers(c, m, 64);
      }
  });
}

TEST(I8gemm, SumsAreTheExactIntegersForEveryGroupAndRaggedShape) {
  for_each_kernels([] {
    for (int bits : {3, 4, 8})
      for (int64_t group : {-1, 32, 64, 96, 128})
        for (int64_t k : {1, 32, 129, 515})
          for (bool zeros : {false, true})
            for (int64_t m : {1, 3, 8, 13, 27})
              for (int64_t n : {1, 16, 35, 64}) expect_integers(Case({n, k, bits, group, zeros, ScaleType::bf16}, 5, 1.0f), m, group);
  });
}

TEST(I8gemm, GroupsOfWeightsAndActivationsMayDiffer) {
  for_each_kernels([] {
    for (auto [w, x] : {std::pair<int64_t, int64_t>{128, 32}, {32, 128}, {-1, 64}, {64, -1}, {256, 64}})
      for (int64_t m : {2, 11, 29}) expect_integers(Case({20, 300, 4, w, true, ScaleType::f16}, 5, 1.0f), m, x);
  });
}

TEST(I8gemm, ManyRowsAndColumnsCrossTheTiles) {
  for_each_kernels([] {
    expect_integers(Case({50, 70, 4, 32, true, ScaleType::bf16}, 5, 1.0f), 530, 32);
    expect_integers(Case({50, 150, 4, 64, true, ScaleType::bf16}, 5, 1.0f), 530, 64);
    for (int64_t m : {9, 25}) {
      expect_integers(Case({33, 4200, 4, -1, false, ScaleType::bf16}, 5, 1.0f), m, -1);
      expect_integers(Case({33, 4200, 2, 128, false, ScaleType::bf16}, 5, 1.0f), m, 128);
    }
  });
}

TEST(I8gemm, ExtremeBytesDoNotSaturate) {
  for_each_kernels([] {
    const int64_t k = 4096;
    for (int bits : {2, 3, 4, 5, 6, 7, 8})
      for (int8_t xv : {int8_t{-128}, int8_t{127}})
        for (int64_t m : {1, 9, 30}) {
          Case c({16, k, bits, -1, true, ScaleType::f32}, 1, 1.0f);
          const int most = (1 << bits) - 1;
          std::fill(c.codes.begin(), c.codes.end(), static_cast<uint8_t>(most));
          std::fill(c.zeros.begin(), c.zeros.end(), uint8_t{0});
          pack(c.spec, c.codes.data(), c.scales.data(), c.zeros.data(), c.packed.data());
          Quantized x(m, k, segment_of(c.spec, -1), c.spec.bits);
          x.set(std::vector<int8_t>(m * k, xv));
          std::vector<float> y(m * 16);
          matmul(x.rows, m, c.packed.data(), c.spec, nullptr, y.data(), 16, 0, 16);
          for (float v : y) ASSERT_EQ(v, static_cast<float>(xv * most) * 4096.0f) << bits;  // few bits before a power of two: exact
        }
  });
}

TEST(I8gemm, ScalesAndBiasFollowTheDefinition) {
  for_each_kernels([] {
    for (int64_t m : {1, 6, 12, 26})
      for (int64_t group : {-1, 32, 128})
        for (bool zeros : {false, true}) {
          const Case c({37, 500, 4, group, zeros, ScaleType::f16}, 2);
          const Spec& s = c.spec;
          Quantized x(m, s.k, segment_of(s, 64), s.bits);
          const auto values = normal(m * s.k, 5), bias = normal(s.n, 6);
          quantize(values.data(), s.k, m, 64, x.rows, 0);
          std::vector<float> y(m * s.n);
          matmul(x.rows, m, c.packed.data(), s, bias.data(), y.data(), s.n, 0, s.n);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t n = 0; n < s.n; ++n) {
              double want = bias[n], size = std::fabs(want);
              for (int64_t k = 0; k < s.k; ++k) {
                const double term = double{x.scale[x.rows.at(i, k / x.rows.segment)]} * x.code(i, k) * c.integer(n, k) * c.scales[c.group(n, k)];
                want += term;
                size += std::fabs(term);
              }
              // one product of scales, one product and one sum a segment, each within half a unit of what is at hand
              const double bound = 0x1p-24 * size * static_cast<double>(x.rows.segments + 3);
              ASSERT_NEAR(y[i * s.n + n], want, bound) << "m " << i << "/" << m << " n " << n << " group " << group;
            }
        }
  });
}

TEST(I8gemm, RangesAndThreadsEqualTheWhole) {
  for_each_kernels([] {
    const Case c({200, 300, 4, 128, true, ScaleType::f16}, 2);
    for (auto [m, group] : {std::pair<int64_t, int64_t>{1, 32}, {4, 128}, {30, 32}, {30, 128}}) {
      Quantized x(m, c.spec.k, segment_of(c.spec, group), c.spec.bits);
      quantize(normal(m * c.spec.k, 1).data(), c.spec.k, m, group, x.rows, 0);
      std::vector<float> whole(m * 200);
      auto run = [&, count = m](std::vector<float>& y, int64_t a, int64_t b) {
        matmul(x.rows, count, c.packed.data(), c.spec, nullptr, y.data(), 200, a, b);
      };
      run(whole, 0, 200);
      for (int threads : {1, 2, 8}) {
        std::vector<float> parts(m * 200);
        std::vector<std::thread> all;
        for (int t = 0; t < threads; ++t)
          all.emplace_back([&, t] { run(parts, 13 * t / threads * 16, t + 1 == threads ? 200 : 13 * (t + 1) / threads * 16); });
        for (auto& t : all) t.join();
        ASSERT_EQ(whole, parts) << threads;
      }
    }
  });
}

// y of one shape with random scales, under whatever is in use.
std::vector<float> product(const Case& c, int64_t m, int64_t x_group, const float* bias) {
  Quantized x(m, c.spec.k, segment_of(c.spec, x_group), c.spec.bits);
  quantize(normal(m * c.spec.k, 7).data(), c.spec.k, m, x_group, x.rows, 0);
  std::vector<float> y(m * c.spec.n);
  matmul(x.rows, m, c.packed.data(), c.spec, bias, y.data(), c.spec.n, 0, c.spec.n);
  return y;
}

TEST(I8gemm, VectorSetsGiveTheSameFloats) {
  const auto bias = normal(83, 6);
  std::vector<std::vector<float>> first;
  for_each_kernels([&] {
    if (active_kernels().table == &kScalar) return;  // rounds a product before it is added
    std::vector<std::vector<float>> all;
    for (int bits : {2, 4, 7, 8})
      for (bool zeros : {false, true})
        for (auto [group, x_group] : {std::pair<int64_t, int64_t>{128, 128}, {-1, -1}, {192, 64}, {256, -1}, {32, 32}}) {
          const Case c({83, 1500, bits, group, zeros, ScaleType::f16}, 8);
          for (int64_t m : {5, 9, 24, 25, 49}) {
            all.push_back(product(c, m, x_group, m > kMostDecodeRows ? bias.data() : nullptr));
            if (first.empty()) continue;
            ASSERT_EQ(first[all.size() - 1], all.back()) << bits << " bits, groups of " << group << "/" << x_group << ", m " << m;
          }
        }
    if (first.empty()) first = all;
  });
}

TEST(I8gemm, TilesTakeManyRowsInSegmentsOfWholeTiles) {
  const Kernels amx{&kAvx512, &kAmxTwin};
  set_kernels(&amx);
  const auto together = [](int64_t m, int64_t k, int64_t segment) { return rows_of(m, k, segment, 4).together; };
  EXPECT_EQ(together(9, 1536, 128), 64);
  EXPECT_EQ(together(9, 100, 64), 64);
  EXPECT_EQ(together(9, 1536, kMaxSegment), 64);
  EXPECT_EQ(together(9, 96, 96), 64);  // the only segment: zeros follow
  EXPECT_EQ(together(8, 1536, 128), 4);
  EXPECT_EQ(together(9, 1536, 32), 4);
  EXPECT_EQ(together(9, 1536, 96), 4);
  EXPECT_EQ(rows_of(33, 1536, 128, 4).padded, 64);
  set_kernels(nullptr);
}

TEST(I8gemm, NoThreadKeepsTilesConfigured) {
  if (!isa_supported(Isa::avx512)) GTEST_SKIP() << "the twin of AMX runs on machines with avx512";
  kAmxTwin.begin();
  EXPECT_TRUE(tiles_configured());
  kAmxTwin.end();
  EXPECT_FALSE(tiles_configured());
  const Kernels amx{&kAvx512, &kAmxTwin};
  const Case c({64, 128, 4, 128, true, ScaleType::f16}, 8);
  set_kernels(&amx);
  std::vector<std::thread> all;
  for (int t = 0; t < 3; ++t)
    all.emplace_back([&] {
      for (int64_t m : {1, 40}) product(c, m, 128, nullptr);
      EXPECT_FALSE(tiles_configured());
    });
  for (auto& t : all) t.join();
  set_kernels(nullptr);
}

TEST(I8gemm, SegmentsLieInGroupsOfBothSides) {
  auto segment = [](int64_t k, int64_t w, int64_t x) { return segment_of({16, k, 4, w, false, ScaleType::f16}, x); };
  EXPECT_EQ(segment(1536, 128, 128), 128);
  EXPECT_EQ(segment(1536, 128, -1), 128);
  EXPECT_EQ(segment(1536, -1, 128), 128);
  EXPECT_EQ(segment(1536, 32, 128), 32);
  EXPECT_EQ(segment(1536, -1, -1), kMaxSegment);
  EXPECT_EQ(segment(100, -1, -1), 128);
  EXPECT_EQ(segment(1536, 4096, 2000), kMaxSegment);  // both cover the row
  EXPECT_EQ(segment(1536, 16, 16), 0);
  EXPECT_EQ(segment(1536, 128, 96), 0);
  EXPECT_EQ(segment(1536, 96, 96), 96);
  EXPECT_EQ(segment(8192, 4096, 4096), kMaxSegment);
  EXPECT_EQ(segment(8192, 1056, 1056), 0);  // longer than a segment, and no multiple of one
}

TEST(QuantizeRows, EveryIsaGivesTheDefinition) {
  for_each_kernels([] {
    for (int64_t k : {1, 7, 16, 100, 513})
      for (int64_t m : {1, 2, 5, 10, 28})
        for (int64_t group : {-1, 32, 64}) {
          const int64_t ldx = k + 2, segment = segment_of({16, k, 4, 128, false, ScaleType::f16}, group);
          const auto x = normal(m * ldx, static_cast<unsigned>(k));
          Quantized out(m, k, segment, m % 2 == 0 ? 4 : 8);
          quantize(x.data(), ldx, m, group, out.rows, 0);
          for (int64_t i = 0; i < m; ++i) {
            std::vector<int32_t> sums(out.rows.segments, 0);
            const int64_t g = group > 0 ? group : k;
            for (int64_t from = 0; from < k; from += g) {
              const int64_t end = std::min(k, from + g);
              float most = 0;
              for (int64_t t = from; t < end; ++t) most = std::max(most, std::fabs(x[i * ldx + t]));
              for (int64_t t = from; t < end; ++t) {
                const float scale = out.scale[out.rows.at(i, t / segment)];
                ASSERT_EQ(scale, most / 127.5f);
                ASSERT_EQ(out.code(i, t), std::clamp(std::nearbyint(x[i * ldx + t] / scale), -128.0f, 127.0f)) << i << " " << t;
                sums[t / segment] += out.code(i, t);
              }
            }
            for (int64_t s = 0; s < out.rows.segments; ++s) ASSERT_EQ(out.minus_sum[out.rows.at(i, s)], -sums[s]);
            for (int64_t t = k; t < out.rows.stride; ++t) ASSERT_EQ(out.code(i, t), 0) << "padding";
          }
        }
  });
}

TEST(QuantizeRows, ColumnsByPartsEqualWholeRows) {
  for_each_kernels([] {
    for (int64_t k : {200, 384, 2100})
      for (int64_t m : {1, 5, 29}) {
        const auto x = normal(m * k, static_cast<unsigned>(k));
        const std::vector<float> scales(m, 0.02f);
        for (int64_t group : {64, 128, -1}) {
          const int64_t segment = segment_of({16, k, 4, group, false, ScaleType::f16}, -1);
          Quantized whole(m, k, segment, 4), parts(m, k, segment, 4);
          std::fill(parts.minus_sum.begin(), parts.minus_sum.end(), 0);
          quantize_static(x.data(), k, m, scales.data(), whole.rows, 0);
          for (const auto& [row, rows] : {std::pair{m / 2, m - m / 2}, std::pair{int64_t{0}, m / 2}})
            for (int64_t begin = (k - 1) / 64 * 64; begin >= 0; begin -= 64) {
              const int64_t end = std::min(k, begin + 64);
              quantize_static_columns(x.data() + row * k + begin, k, rows, scales.data() + row, parts.rows, row, begin, end);
            }
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t t = 0; t < whole.rows.stride; ++t) ASSERT_EQ(parts.code(i, t), whole.code(i, t)) << i << " " << t;
            for (int64_t s = 0; s < whole.rows.segments; ++s) {
              const int64_t at = whole.rows.at(i, s);
              ASSERT_EQ(parts.scale[at], whole.scale[at]);
              ASSERT_EQ(parts.minus_sum[at], whole.minus_sum[at]) << i << ", segment " << s;
            }
          }
        }
      }
  });
}

TEST(QuantizeRows, ARowOfItsOwnHasTheSameCodesAndScale) {
  for_each_isa([] {
    for (int64_t k : {1, 7, 64, 100, 513}) {
      auto x = normal(static_cast<size_t>(k), static_cast<unsigned>(k));
      for (float first : {x[0], NAN}) {
        x[0] = first;
        Quantized out(1, k, segment_of({16, k, 4, -1, false, ScaleType::f16}, -1), 4);
        quantize(x.data(), k, 1, -1, out.rows, 0);
        std::vector<int8_t> q(static_cast<size_t>(k) + 1, 99);
        const float scale = quantize_row(x.data(), k, q.data());
        if (std::isnan(first))
          ASSERT_TRUE(std::isnan(scale));
        else
          ASSERT_EQ(scale, out.scale[0]);
        for (int64_t t = 0; t < k; ++t) ASSERT_EQ(q[static_cast<size_t>(t)], out.code(0, t)) << k << " " << t;
        ASSERT_EQ(q[static_cast<size_t>(k)], 99) << "wrote past the row";
      }
    }
  });
}

TEST(QuantizeRows, QuotientsNextToHalvesRoundAsDivisionDoes) {
  for_each_kernels([] {
    std::mt19937 rng(3);
    for (int round = 0; round < 400; ++round) {
      const int64_t k = 256;
      const float scale = std::ldexp(std::uniform_real_distribution<float>(1, 2)(rng), static_cast<int>(rng() % 200) - 100);
      std::vector<float> x(k);
      for (int64_t i = 0; i < k; ++i) {
        x[i] = (static_cast<float>(i) - 128 + 0.5f) * scale;
        for (unsigned step = rng() % 5; step > 0; --step) x[i] = std::nextafter(x[i], rng() % 2 ? 1e38f : -1e38f);
      }
      Quantized out(1, k, 256, 8);
      quantize_static(x.data(), k, 1, &scale, out.rows, 0);
      for (int64_t i = 0; i < k; ++i) ASSERT_EQ(out.code(0, i), std::clamp(std::nearbyint(x[i] / scale), -128.0f, 127.0f)) << x[i] << " / " << scale;
    }
  });
}

TEST(QuantizeRows, HalvesGoToEvenAndZerosStayZero) {
  for_each_kernels([] {
    const std::vector<float> x = {127.5f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127.5f, 126.5f};
    Quantized out(1, 9, 32, 8);
    quantize(x.data(), 9, 1, -1, out.rows, 0);
    EXPECT_EQ(out.scale[0], 1.0f);
    EXPECT_EQ(std::vector<int8_t>(out.q.begin(), out.q.begin() + 9), (std::vector<int8_t>{127, 0, 2, 2, 0, -2, -2, -128, 126}));
    for (float tiny : {0.0f, -0.0f, 1e-45f}) {  // 1e-45 / 127.5 is 0 in f32
      const std::vector<float> zeros(20, tiny);
      Quantized none(1, 20, 32, 8);
      quantize(zeros.data(), 20, 1, -1, none.rows, 0);
      EXPECT_EQ(none.scale[0], 0.0f);
      EXPECT_EQ(none.minus_sum[0], 0);
      EXPECT_EQ(none.q, std::vector<int8_t>(64, 0));
    }
  });
}

TEST(QuantizeRows, DenormalScalesStayInRange) {
  for_each_kernels([] {
    const std::vector<float> x(17, 200e-45f);
    Quantized out(1, 17, 32, 8);
    quantize(x.data(), 17, 1, -1, out.rows, 0);
    EXPECT_GT(out.scale[0], 0.0f);
    for (int64_t i = 0; i < 17; ++i) EXPECT_EQ(out.code(0, i), 127);
  });
}

TEST(QuantizeRows, WhatIsNoNumberStaysNone) {
  for_each_kernels([] {
    for (float odd : {NAN, -INFINITY})
      for (int64_t at : {0, 17, 39}) {
        const Case c({16, 40, 4, -1, true, ScaleType::f32}, 3);
        auto x = normal(3 * 40, 4);
        x[40 + at] = odd;
        Quantized q(3, 40, segment_of(c.spec, 32), c.spec.bits);
        quantize(x.data(), 40, 3, 32, q.rows, 0);
        float y[3][16];
        matmul(q.rows, 3, c.packed.data(), c.spec, nullptr, y[0], 16, 0, 16);
        for (int n = 0; n < 16; ++n) {
          ASSERT_TRUE(std::isfinite(y[0][n]) && std::isfinite(y[2][n]));
          ASSERT_FALSE(std::isfinite(y[1][n])) << odd << " at " << at;
        }
      }
  });
}

TEST(QuantizeRows, GivenScalesClamp) {
  for_each_kernels([] {
    const std::vector<float> x = {0, 1, -1, 1e30f, -1e30f, 0.25f, 0.75f};
    const float scale = 0.5f;
    Quantized out(1, 7, 32, 8);
    quantize_static(x.data(), 7, 1, &scale, out.rows, 0);
    EXPECT_EQ(std::vector<int8_t>(out.q.begin(), out.q.begin() + 7), (std::vector<int8_t>{0, 2, -2, 127, -128, 0, 2}));
    EXPECT_EQ(out.minus_sum[0], -(2 - 2 + 127 - 128 + 2));
  });
}

}  // namespace
}  // namespace statera::kernels::i8gemm
