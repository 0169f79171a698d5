// bgemm against sums in double of elements rounded to bf16, for every way the matrices may lie, ragged sizes and split ranges.
#include "kernels/bgemm/bgemm.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "kernels/isa_test.h"

namespace statera::kernels::bgemm {

extern const Micro kAmxTwin;  // tiles emulated

namespace {

double rounded(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((u + 0x7fff + (u >> 16 & 1)) & 0xffff0000);
}

struct Case {
  int64_t m, n, k;
};

class Products : public testing::TestWithParam<std::tuple<bool, bool>> {
 protected:
  // C by `splits` ranges of panels and of rows.
  static std::vector<float> product(const Case& c, const Matrix& a, const Matrix& b, int64_t splits) {
    std::vector<uint32_t> packed(static_cast<size_t>(packed_size(c.n, c.k)), 0x7fc07fc0);
    std::vector<float> out(static_cast<size_t>(c.m * c.n), NAN);
    for (int64_t i = 0; i < splits; ++i) pack(b, c.n, c.k, packed.data(), panels(c.n) * i / splits, panels(c.n) * (i + 1) / splits);
    for (int64_t i = 0; i < splits; ++i) matmul(a, c.m * i / splits, c.m * (i + 1) / splits, c.k, packed.data(), c.n, out.data(), c.n);
    return out;
  }
};

TEST_P(Products, AreThoseOfElementsRoundedToBf16) {
  const auto [a_turned, b_turned] = GetParam();
  for_each_isa([&] {
    for (const Case c : {Case{1, 1, 1}, {3, 5, 2}, {12, 32, 256}, {13, 33, 257}, {96, 64, 31}, {97, 31, 512}, {110, 100, 519}, {25, 70, 0}}) {
      const auto av = normal(static_cast<size_t>(c.m * c.k), 1), bv = normal(static_cast<size_t>(c.n * c.k), 2);
      const Matrix a{av.data(), a_turned ? c.m : c.k, a_turned}, b{bv.data(), b_turned ? c.n : c.k, b_turned};
      const auto out = product(c, a, b, 1);
      for (int64_t i = 0; i < c.m; ++i)
        for (int64_t j = 0; j < c.n; ++j) {
          double sum = 0, size = 0;
          for (int64_t k = 0; k < c.k; ++k) {
            const double one = rounded(av[static_cast<size_t>(a_turned ? k * c.m + i : i * c.k + k)]) * rounded(bv[static_cast<size_t>(b_turned ? k * c.n + j : j * c.k + k)]);
            sum += one;
            size += std::abs(one);
          }
          ASSERT_NEAR(out[static_cast<size_t>(i * c.n + j)], sum, size * 1e-6) << c.m << "x" << c.n << "x" << c.k << " at " << i << "," << j;
        }
      EXPECT_EQ(product(c, a, b, 3), out) << c.m << "x" << c.n << "x" << c.k;
    }
  });
}
INSTANTIATE_TEST_SUITE_P(Turned, Products, testing::Combine(testing::Bool(), testing::Bool()));

// Both tables round alike, ties and numbers that are none included; a row of two thousand numbers holds every upper half's neighbours.
TEST(Bgemm, RoundingIsTheSpecifications) {
  if (!available()) GTEST_SKIP() << "this machine, or STATERA_ISA, has no bf16 products";
  std::vector<float> x;
  for (uint32_t high : {0x3f80u, 0x3f81u, 0xbf80u, 0x7f7fu, 0x7f80u, 0xff80u, 0x0080u, 0x7fc0u})
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) x.push_back(std::bit_cast<float>(high << 16 | low));
  for (float v : normal(1000, 3)) x.push_back(v);
  const auto count = static_cast<int64_t>(x.size());
  for (int64_t k : {count, count - 1, int64_t{1}, int64_t{33}}) {
    std::vector<uint32_t> spec(static_cast<size_t>((k + 1) / 2)), fast(spec.size());
    kScalar.row(x.data(), k, spec.data());
    kAvx512Bf16.row(x.data(), k, fast.data());
    EXPECT_EQ(fast, spec) << k;
  }
  std::vector<uint32_t> spec(x.size()), fast(x.size());
  for (const float* odd : {static_cast<const float*>(nullptr), static_cast<const float*>(x.data())}) {
    kScalar.columns(x.data(), odd, count, spec.data());
    kAvx512Bf16.columns(x.data(), odd, count, fast.data());
    EXPECT_EQ(fast, spec);
  }
}

// Any number of rows, pairs that do and do not fill tiles, sums begun and gone on with; rows that were not asked for stay as they are.
TEST(Bgemm, TilesAddUpWhatTheSpecificationDoes) {
  if (!isa_supported(Isa::avx512)) GTEST_SKIP() << "the twin of AMX runs on machines with avx512";
  constexpr int64_t kPairs = kDepth / 2, kLd = kColumns + 3;
  const auto pairs_of = [](int64_t count, unsigned seed) {
    std::vector<uint32_t> packed(static_cast<size_t>(count));
    kScalar.row(normal(static_cast<size_t>(2 * count), seed).data(), 2 * count, packed.data());
    return packed;
  };
  const auto a = pairs_of(kMaxMicroRows * kPairs, 1), b = pairs_of(kPairs * kColumns, 2);
  const auto before = normal(static_cast<size_t>((kMaxMicroRows + 1) * kLd), 3);
  for (int rows = 1; rows <= kAmxTwin.max_rows; ++rows)
    for (int64_t pairs : {int64_t{1}, int64_t{16}, int64_t{21}, int64_t{96}, kPairs})
      for (bool add : {false, true}) {
        auto spec = before, fast = before;
        kScalar.micro.run(a.data(), rows, b.data(), pairs, add, spec.data(), kLd);
        kAmxTwin.begin();
        kAmxTwin.run(a.data(), rows, b.data(), pairs, add, fast.data(), kLd);
        kAmxTwin.end();
        for (size_t i = 0; i < spec.size(); ++i)
          ASSERT_NEAR(fast[i], spec[i], spec[i] == before[i] ? 0 : 1e-4) << rows << " rows, " << pairs << " pairs, add " << add << ", element " << i;
      }
}

}  // namespace
}  // namespace statera::kernels::bgemm
