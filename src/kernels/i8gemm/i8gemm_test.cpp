// Laws of i8gemm: sums are the exact integers on every instruction set, quantization is bit-equal everywhere, unpack inverts
// pack, zero points equal their definition, ranges equal the whole.
#include "kernels/i8gemm/i8gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/isa_test.h"

namespace statera::kernels::i8gemm {
namespace {

std::vector<int8_t> bytes(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<int8_t> v(count);
  for (auto& b : v) b = static_cast<int8_t>(rng() % 8 == 0 ? (rng() % 2 ? -128 : 127) : static_cast<int>(rng() % 256) - 128);
  return v;
}

struct Weights {
  Spec spec;
  std::vector<int8_t> w, zeros;
  std::vector<float> scales;
  std::vector<uint64_t> packed;
  Weights(int64_t n, int64_t k, bool with_zeros) : spec{n, k, with_zeros}, w(bytes(n * k, 1)), zeros(bytes(n, 2)), scales(normal(n, 3)) {
    packed.resize(packed_bytes(spec) / 8);
    pack(spec, w.data(), scales.data(), with_zeros ? zeros.data() : nullptr, packed.data());
  }
};

TEST(I8gemm, UnpackReturnsWhatWasPacked) {
  for (int64_t n : {1, 16, 37})
    for (int64_t k : {1, 4, 63, 130}) {
      const Weights c(n, k, true);
      std::vector<int8_t> w(c.w.size()), zeros(n);
      std::vector<float> scales(n);
      unpack(c.spec, c.packed.data(), w.data(), scales.data(), zeros.data());
      EXPECT_EQ(w, c.w);
      EXPECT_EQ(zeros, c.zeros);
      EXPECT_EQ(scales, c.scales);
    }
}

TEST(I8gemm, SumsAreTheExactIntegersOnEveryIsa) {
  for_each_isa([] {
    for (int64_t n : {1, 16, 37, 64})
      for (int64_t k : {1, 3, 4, 16, 67, 515})
        for (int64_t m : {1, 2, 3, 4, 5, 8, 12, 13, 17, 270}) {
          if (m == 270 && k != 67) continue;
          const Weights c(n, k, false);
          const int64_t ldx = k + 1, ldy = n + 2;
          const auto x = bytes(m * ldx, 4);
          std::vector<int32_t> y(m * ldy, 77);
          matmul_i32(x.data(), ldx, m, c.packed.data(), c.spec, y.data(), ldy, 0, n);
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t j = 0; j < n; ++j) {
              int32_t want = 0;
              for (int64_t t = 0; t < k; ++t) want += x[i * ldx + t] * c.w[j * k + t];
              ASSERT_EQ(y[i * ldy + j], want) << "m " << i << "/" << m << " n " << j << "/" << n << " k " << k;
            }
            ASSERT_EQ(y[i * ldy + n], 77) << "wrote past N";
          }
        }
  });
}

TEST(I8gemm, ExtremeBytesDoNotSaturate) {
  for_each_isa([] {
    const int64_t k = 4096;
    const Spec spec{16, k, false};
    for (int w : {-128, 127})
      for (int xv : {-128, 127}) {
        const std::vector<int8_t> wm(16 * k, static_cast<int8_t>(w)), x(k, static_cast<int8_t>(xv));
        const std::vector<float> scales(16, 1.0f);
        std::vector<uint64_t> packed(packed_bytes(spec) / 8);
        pack(spec, wm.data(), scales.data(), nullptr, packed.data());
        int32_t y[16];
        matmul_i32(x.data(), k, 1, packed.data(), spec, y, 16, 0, 16);
        for (int32_t v : y) ASSERT_EQ(v, static_cast<int32_t>(w * xv * k));
      }
  });
}

TEST(I8gemm, ZeroPointsScalesAndBiasFollowTheDefinition) {
  for_each_isa([] {
    const int64_t n = 21, k = 101, m = 6;
    const Weights c(n, k, true);
    const auto x = bytes(m * k, 4);
    const auto sx = normal(m, 5), bias = normal(n, 6);
    const std::vector<int32_t> zx = {0, 1, -128, 127, 55, -3};
    for (bool with : {false, true}) {
      std::vector<float> y(m * n);
      matmul(x.data(), k, m, sx.data(), with ? zx.data() : nullptr, c.packed.data(), c.spec, with ? bias.data() : nullptr, y.data(), n, 0,
             n);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          int32_t sum = 0;
          for (int64_t t = 0; t < k; ++t) sum += (x[i * k + t] - (with ? zx[i] : 0)) * (c.w[j * k + t] - c.zeros[j]);
          ASSERT_EQ(y[i * n + j], static_cast<float>(sum) * sx[i] * c.scales[j] + (with ? bias[j] : 0.0f));
        }
    }
  });
}

TEST(I8gemm, RangesComputedApartEqualTheWhole) {
  for_each_isa([] {
    const Weights c(70, 131, true);
    const int64_t m = 14;
    const auto x = bytes(m * 131, 4);
    const auto sx = normal(m, 5);
    std::vector<float> whole(m * 70), parts(m * 70);
    auto run = [&](std::vector<float>& y, int64_t a, int64_t b) {
      matmul(x.data(), 131, m, sx.data(), nullptr, c.packed.data(), c.spec, nullptr, y.data(), 70, a, b);
    };
    run(whole, 0, 70);
    run(parts, 48, 70);
    run(parts, 0, 16);
    run(parts, 16, 48);
    ASSERT_EQ(whole, parts);
  });
}

TEST(QuantizeRows, EveryIsaGivesTheDefinition) {
  for_each_isa([] {
    for (int64_t k : {1, 7, 16, 100, 513}) {
      const int64_t m = 3, ldx = k + 2;
      const auto x = normal(m * ldx, static_cast<unsigned>(k));
      std::vector<int8_t> q(m * k + 1, 99);
      std::vector<float> scale(m);
      quantize_rows(x.data(), ldx, m, k, q.data(), k, scale.data());
      for (int64_t i = 0; i < m; ++i) {
        float most = 0;
        for (int64_t t = 0; t < k; ++t) most = std::max(most, std::fabs(x[i * ldx + t]));
        ASSERT_EQ(scale[i], most / 127.5f);
        for (int64_t t = 0; t < k; ++t)
          ASSERT_EQ(q[i * k + t], std::clamp(std::nearbyint(x[i * ldx + t] / scale[i]), -128.0f, 127.0f)) << i << " " << t;
      }
      ASSERT_EQ(q[m * k], 99) << "wrote past K";
    }
  });
}

TEST(QuantizeRows, HalvesGoToEvenAndZerosStayZero) {
  for_each_isa([] {
    const std::vector<float> x = {127.5f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127.5f, 126.5f};
    std::vector<int8_t> q(9);
    float scale;
    quantize_rows(x.data(), 9, 1, 9, q.data(), 9, &scale);
    EXPECT_EQ(scale, 1.0f);
    EXPECT_EQ(q, (std::vector<int8_t>{127, 0, 2, 2, 0, -2, -2, -128, 126}));
    for (float tiny : {0.0f, -0.0f, 1e-45f}) {  // 1e-45 / 127.5 is 0 in f32
      const std::vector<float> zeros(20, tiny);
      std::vector<int8_t> out(20, 5);
      quantize_rows(zeros.data(), 20, 1, 20, out.data(), 20, &scale);
      EXPECT_EQ(scale, 0.0f);
      EXPECT_EQ(out, std::vector<int8_t>(20, 0));
    }
  });
}

TEST(QuantizeRows, DenormalScalesStayInRange) {
  for_each_isa([] {
    const std::vector<float> x(17, 200e-45f);
    std::vector<int8_t> q(17);
    float scale;
    quantize_rows(x.data(), 17, 1, 17, q.data(), 17, &scale);
    EXPECT_GT(scale, 0.0f);
    EXPECT_EQ(q, std::vector<int8_t>(17, 127));
  });
}

TEST(QuantizeRows, StaticScalesClampAndShift) {
  for_each_isa([] {
    const std::vector<float> x = {0, 1, -1, 1e30f, -1e30f, 0.25f, 0.75f};
    const float scale = 0.5f;
    const int32_t zero = 10;
    std::vector<int8_t> q(7);
    quantize_rows_static(x.data(), 7, 1, 7, &scale, &zero, q.data(), 7);
    EXPECT_EQ(q, (std::vector<int8_t>{10, 12, 8, 127, -128, 10, 12}));
  });
}

}  // namespace
}  // namespace statera::kernels::i8gemm
