// Laws of qgemm on every instruction set: unpack inverts pack, matmul agrees with a double-precision product within a bound
// from norms, ranges equal the whole.
#include "kernels/qgemm/qgemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/isa_test.h"
#include "kernels/qgemm/case_test.h"
#include "kernels/tile/tile.h"

namespace statera::kernels::qgemm {
namespace {

void expect_product(const Case& c, int64_t m, bool with_bias) {
  const Spec& s = c.spec;
  const int64_t ldx = s.k + 3, ldy = s.n + 5;
  const auto x = normal(m * ldx, 7);
  const auto bias = normal(s.n, 8);
  std::vector<float> y(m * ldy, 12345.0f);
  matmul(x.data(), ldx, m, c.packed.data(), s, with_bias ? bias.data() : nullptr, y.data(), ldy, 0, s.n);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t n = 0; n < s.n; ++n) {
      double want = with_bias ? bias[n] : 0.0, size = std::fabs(want);
      for (int64_t k = 0; k < s.k; ++k) {
        const double xk = x[i * ldx + k], scale = c.scales[n * group_count(s) + k / group_size(s)];
        want += xk * c.weight(n, k);
        size += std::fabs(xk) * scale * (1 << s.bits);  // codes and zeros are summed apart
      }
      // gamma_K of a K-term sum, with the usual square-root behaviour of random signs and a margin of 4
      const double bound = 4 * std::sqrt(static_cast<double>(s.k) + 8) * 0x1p-24 * size;
      ASSERT_NEAR(y[i * ldy + n], want, bound) << "m " << i << " of " << m << ", n " << n << ", bits " << s.bits << ", group " << s.group;
    }
    for (int64_t n = s.n; n < ldy; ++n) ASSERT_EQ(y[i * ldy + n], 12345.0f) << "wrote past N";
  }
}

TEST(Qgemm, UnpackReturnsWhatWasPacked) {
  for (int bits = 2; bits <= 8; ++bits)
    for (int64_t group : {-1, 1, 7, 16, 32, 100, 128})
      for (int64_t k : {1, 31, 64, 257})
        for (int64_t n : {1, 16, 21})
          for (bool zeros : {false, true})
            for (ScaleType type : {ScaleType::f32, ScaleType::bf16, ScaleType::f16}) {
              const Case c({n, k, bits, group, zeros, type}, bits * 100 + static_cast<unsigned>(k));
              std::vector<uint8_t> codes(c.codes.size()), z(c.zeros.size());
              std::vector<float> scales(c.scales.size());
              unpack(c.spec, c.packed.data(), codes.data(), scales.data(), zeros ? z.data() : nullptr);
              ASSERT_EQ(codes, c.codes) << bits << " bits, group " << group << ", k " << k;
              ASSERT_EQ(scales, c.scales);
              ASSERT_EQ(z, c.zeros);
            }
}

TEST(Qgemm, PackedSizeIsTheBitsPerWeight) {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    const Spec spec{256, 4096, bits, 128, false, ScaleType::f16};
    EXPECT_EQ(packed_bytes(spec), size_t(256 * 4096 * bits / 8 + 256 * 32 * 2)) << bits;
  }
}

// Field by field, as docs/formats.md draws them, with noise behind the last code.
std::vector<uint32_t> as_words(const Case& c) {
  const int64_t width = row_words(c.spec);
  std::vector<uint32_t> words(static_cast<size_t>(c.spec.n * width));
  for (int64_t bit = 0; bit < width * 32; ++bit) {
    for (int64_t n = 0; n < c.spec.n; ++n) {
      const int64_t k = bit / c.spec.bits;
      const uint32_t one = k < c.spec.k ? c.codes[n * c.spec.k + k] >> bit % c.spec.bits & 1u : static_cast<uint32_t>(bit + n) % 3 == 0;
      words[static_cast<size_t>(n * width + bit / 32)] |= one << bit % 32;
    }
  }
  return words;
}

TEST(Qgemm, RangesOfCodesAndOfWordsGiveTheWhole) {
  for (int bits = 2; bits <= 8; ++bits)
    for (int64_t group : {-1, 32, 100})
      for (int64_t k : {1, 31, 64, 257, 1100})
        for (int64_t n : {1, 16, 53})
          for (bool zeros : {false, true}) {
            const Case c({n, k, bits, group, zeros, ScaleType::f16}, bits * 100 + static_cast<unsigned>(k));
            const int64_t G = group_count(c.spec), W = row_words(c.spec);
            const auto words = bits == 7 ? std::vector<uint32_t>() : as_words(c);
            for (bool of_words : {false, true}) {
              if (of_words && bits == 7) continue;
              std::vector<uint64_t> packed(c.packed.size(), 0x0123456789abcdefu);
              for (int64_t begin = 0; begin < n; begin += 32) {
                pack_rows(c.spec,
                          {.codes = of_words ? nullptr : c.codes.data() + begin * k, .words = of_words ? words.data() + begin * W : nullptr,
                           .scales = c.scales.data() + begin * G, .zeros = zeros ? c.zeros.data() + begin * G : nullptr},
                          packed.data(), begin, std::min(begin + 32, n));
              }
              ASSERT_EQ(packed, c.packed) << bits << " bits, group " << group << ", [" << n << ", " << k << "], words " << of_words;
            }
          }
}

TEST(Qgemm, PackRefusesWhatDoesNotFit) {
  std::vector<uint64_t> packed(4096);
  const uint8_t code = 16, ok = 3;
  const float scale = 1.0f, odd = 1.0f + 0x1p-20f, big = 70000.0f;
  EXPECT_THROW(pack({1, 1, 4, -1, false, ScaleType::f32}, &code, &scale, nullptr, packed.data()), std::invalid_argument);
  EXPECT_THROW(pack({1, 1, 4, -1, true, ScaleType::f32}, &ok, &scale, &code, packed.data()), std::invalid_argument);
  EXPECT_THROW(pack({1, 1, 4, -1, false, ScaleType::bf16}, &ok, &odd, nullptr, packed.data()), std::invalid_argument);
  EXPECT_THROW(pack({1, 1, 4, -1, false, ScaleType::f16}, &ok, &big, nullptr, packed.data()), std::invalid_argument);
  const uint32_t word = 3;
  EXPECT_THROW(pack_rows({1, 1, 7, -1, false, ScaleType::f32}, {nullptr, &word, &scale, nullptr}, packed.data(), 0, 1), std::invalid_argument);
  EXPECT_THROW(packed_bytes({1, 1, 9, -1, false, ScaleType::f32}), std::invalid_argument);
}

TEST(Qgemm, ExactScaleTypeIsTheNarrowestExactOne) {
  auto type = [](std::vector<float> v) { return exact_scale_type(v.data(), static_cast<int64_t>(v.size())); };
  EXPECT_EQ(type({0.5f, 0x1p-24f, -65504.0f, 0.0f, 1.0f + 0x1p-10f}), ScaleType::f16);
  EXPECT_EQ(type({0.5f, 0x1p-60f}), ScaleType::bf16);
  EXPECT_EQ(type({0.5f, 65536.0f}), ScaleType::bf16);
  EXPECT_EQ(type({0x1p-60f, 1.0f + 0x1p-10f}), ScaleType::f32);
  EXPECT_EQ(type({0.1f}), ScaleType::f32);
  EXPECT_EQ(type({0x1p-25f + 0x1p-26f, 1.0f + 0x1p-10f}), ScaleType::f32);
}

TEST(Qgemm, TinyF16ScalesAreDecodedExactly) {
  for_each_isa([] {
    const Spec spec{16, 32, 4, 32, false, ScaleType::f16};
    std::vector<uint8_t> codes(16 * 32, 9);
    std::vector<float> scales;
    for (int i = 0; i < 16; ++i) scales.push_back((i % 2 ? -1.0f : 1.0f) * static_cast<float>(i + 1) * 0x1p-24f);
    std::vector<uint64_t> packed(packed_bytes(spec) / 8);
    pack(spec, codes.data(), scales.data(), nullptr, packed.data());
    std::vector<float> w(16 * 32);
    dequantize(spec, packed.data(), w.data(), 0, 16);
    for (int n = 0; n < 16; ++n) ASSERT_EQ(w[n * 32], scales[n]);
  });
}

TEST(Qgemm, DequantizeIsExactOnEveryIsa) {
  for_each_isa([] {
    for (int bits = 2; bits <= 8; ++bits)
      for (int64_t group : {-1, 1, 5, 16, 32, 48, 128})
        for (bool zeros : {false, true}) {
          const Case c({37, 301, bits, group, zeros, bits % 2 ? ScaleType::f32 : ScaleType::bf16}, 3);
          std::vector<float> w(11 * c.spec.k);
          dequantize(c.spec, c.packed.data(), w.data(), 9, 20);
          for (int64_t n = 9; n < 20; ++n)
            for (int64_t k = 0; k < c.spec.k; ++k)
              ASSERT_EQ(w[(n - 9) * c.spec.k + k], c.weight(n, k)) << bits << " " << group << " " << n << " " << k;
        }
  });
}

TEST(Qgemm, MatmulAgreesWithDoublePrecisionForEveryRowCount) {
  for_each_isa([] {
    for (int bits : {2, 3, 4, 5, 6, 7, 8}) {
      const Case c({37, 200, bits, 64, bits % 2 == 0, ScaleType::f16}, 11);
      for (int64_t m = 1; m <= 17; ++m) expect_product(c, m, m % 2);
    }
  });
}

TEST(Qgemm, MatmulAgreesForEveryGroupAndRaggedShape) {
  for_each_isa([] {
    for (int bits : {3, 4, 8})
      for (int64_t group : {-1, 1, 7, 16, 32, 96, 128})
        for (int64_t k : {1, 32, 129, 515})
          for (bool zeros : {false, true})
            for (int64_t m : {1, 3, 8, 13}) expect_product(Case({19, k, bits, group, zeros, ScaleType::f32}, 5), m, true);
  });
}

TEST(Qgemm, ManyRowsCrossTheTiles) {
  for_each_isa([] { expect_product(Case({50, 600, 4, 128, true, ScaleType::bf16}, 5), tile::kTileM + 7, true); });
}

TEST(Qgemm, RangesComputedApartEqualTheWhole) {
  for_each_isa([] {
    const Case c({70, 300, 4, 32, true, ScaleType::f16}, 2);
    for (int64_t m : {1, 4, 30}) {
      const auto x = normal(m * c.spec.k, 1);
      std::vector<float> whole(m * c.spec.n), parts(m * c.spec.n);
      auto run = [&](std::vector<float>& y, int64_t a, int64_t b) {
        matmul(x.data(), c.spec.k, m, c.packed.data(), c.spec, nullptr, y.data(), c.spec.n, a, b);
      };
      run(whole, 0, 70);
      run(parts, 48, 70);
      run(parts, 16, 48);
      run(parts, 0, 16);
      ASSERT_EQ(whole, parts);
    }
  });
}

TEST(Qgemm, ManyGroupsWithZerosFallBackToWeightByWeight) {  // more group sums than fit the stack
  for_each_isa([] { expect_product(Case({16, 32 * 1100, 4, 32, true, ScaleType::f16}, 5), 8, false); });
}

}  // namespace
}  // namespace statera::kernels::qgemm
