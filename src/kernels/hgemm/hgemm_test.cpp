// Laws of hgemm on every instruction set: agreement with a double-precision product within a bound from norms, no read past
// the end of the weights, ranges equal the whole.
#include "kernels/hgemm/hgemm.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/isa_test.h"
#include "kernels/tile/tile.h"

namespace statera::kernels::hgemm {
namespace {

// Weights with 8 significant bits and small exponents (i8: integers), so that each type holds them exactly. They end at an unreadable page.
struct Weights {
  Matrix w;
  std::vector<float> values;  // [n, k]
  void* map = nullptr;
  size_t map_bytes = 0;

  Weights(int64_t n, int64_t k, Type type) : w{nullptr, type, n, k, k} {
    std::mt19937 rng(9);
    values.resize(n * k);
    const size_t size = static_cast<size_t>(size_of(type)), page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t bytes = n * k * size, readable = (bytes + page - 1) / page * page;
    map_bytes = readable + page;
    map = ::mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_EQ(::mprotect(static_cast<char*>(map) + readable, page, PROT_NONE), 0);
    char* at = static_cast<char*>(map) + readable - bytes;
    w.data = at;
    for (size_t i = 0; i < values.size(); ++i) {
      const int v = type == Type::i8 ? static_cast<int>(rng() % 256) - 128 : static_cast<int>(rng() % 511) - 255;
      values[i] = static_cast<float>(v) / (type == Type::i8 ? 1.0f : 128.0f);
      uint32_t bits;
      std::memcpy(&bits, &values[i], 4);
      if (type == Type::f32) std::memcpy(at + i * 4, &bits, 4);
      const uint16_t half = type == Type::bf16 ? static_cast<uint16_t>(bits >> 16)
                            : v == 0
                                ? 0
                                : static_cast<uint16_t>((bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023));
      if (type == Type::i8) at[i] = static_cast<char>(v);
      if (size == 2) std::memcpy(at + i * 2, &half, 2);
    }
  }
  ~Weights() { ::munmap(map, map_bytes); }
  Weights(const Weights&) = delete;
};

void expect_product(const Weights& c, int64_t m, bool with_bias) {
  const int64_t n = c.w.n, k = c.w.k, ldx = k + 3, ldy = n + 5;
  const auto x = normal(m * ldx, 7), bias = normal(n, 8);
  std::vector<float> y(m * ldy, 12345.0f);
  matmul(x.data(), ldx, m, c.w, with_bias ? bias.data() : nullptr, y.data(), ldy, 0, n);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double want = with_bias ? bias[j] : 0.0, size = std::fabs(want);
      for (int64_t t = 0; t < k; ++t) {
        const double p = double{x[i * ldx + t]} * c.values[j * k + t];
        want += p;
        size += std::fabs(p);
      }
      // gamma_K of a K-term sum, with the usual square-root behaviour of random signs and a margin of 4
      ASSERT_NEAR(y[i * ldy + j], want, 4 * std::sqrt(static_cast<double>(k) + 8) * 0x1p-24 * size)
          << "m " << i << "/" << m << " n " << j << " k " << k;
    }
    for (int64_t j = n; j < ldy; ++j) ASSERT_EQ(y[i * ldy + j], 12345.0f) << "wrote past N";
  }
}

constexpr Type kTypes[] = {Type::f32, Type::bf16, Type::f16, Type::i8};

TEST(Hgemm, WithoutColumnsTheBiasRemains) {
  for_each_isa([] {
    for (Type type : kTypes)
      for (int64_t m : {1, 3, 9}) expect_product(Weights(20, 0, type), m, true);
  });
}

TEST(Hgemm, MatmulAgreesWithDoublePrecisionForEveryTypeAndShape) {
  for_each_isa([] {
    for (Type type : kTypes)
      for (int64_t n : {1, 16, 23, 37})
        for (int64_t k : {1, 7, 16, 33, 300}) {
          const Weights c(n, k, type);
          for (int64_t m = 1; m <= 17; ++m) expect_product(c, m, m % 2);
        }
  });
}

TEST(Hgemm, ManyRowsCrossTheTiles) {
  for_each_isa([] {
    for (Type type : kTypes) expect_product(Weights(50, 600, type), tile::kTileM + 7, true);
  });
}

TEST(Hgemm, EveryF16ValueIsDecodedExactly) {  // subnormals, infinities and signed zeros too
  for_each_isa([] {
    std::vector<uint16_t> all;
    for (uint32_t h = 0; h < 65536; ++h)
      if ((h & 0x7fff) <= 0x7c00) all.push_back(static_cast<uint16_t>(h));
    const int64_t n = static_cast<int64_t>(all.size());
    for (int64_t m : {1, 9}) {
      const std::vector<float> one(m, 1.0f);
      std::vector<float> y(m * n);
      matmul(one.data(), 1, m, {all.data(), Type::f16, n, 1, 1}, nullptr, y.data(), n, 0, n);
      for (int64_t i = 0; i < n; ++i) {
        const int exponent = all[i] >> 10 & 31, fraction = all[i] & 1023;
        const float size = exponent == 31  ? INFINITY
                           : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                           : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
        ASSERT_EQ(y[(m - 1) * n + i], all[i] & 0x8000 ? -size : size) << all[i];
      }
    }
  });
}

TEST(Hgemm, InfiniteRowsGiveInfiniteProductsAndLeaveOthersAlone) {
  for_each_isa([] {
    for (Type type : {Type::f32, Type::bf16}) {
      const Weights c(150, 900, type);
      const int64_t m = 70, n = c.w.n, k = c.w.k;
      auto x = normal(m * k, 7);
      const auto clean = x;
      x[5 * k + 3] = INFINITY, x[66 * k + 880] = -INFINITY, x[40 * k] = NAN;
      std::vector<float> y(m * n), without(m * n);
      matmul(x.data(), k, m, c.w, nullptr, y.data(), n, 0, n);
      matmul(clean.data(), k, m, c.w, nullptr, without.data(), n, 0, n);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          const float made = y[i * n + j];
          if (i == 5 || i == 66) {
            const float weight = i == 5 ? c.values[j * k + 3] : -c.values[j * k + 880];
            ASSERT_TRUE(weight == 0 ? std::isnan(made) : made == (weight > 0 ? INFINITY : -INFINITY)) << i << "," << j;
          } else if (i == 40) {
            ASSERT_TRUE(std::isnan(made));
          } else {
            ASSERT_EQ(made, without[i * n + j]) << i << "," << j;
          }
        }
    }
  });
}

TEST(Hgemm, RowsMayLieApart) {
  for_each_isa([] {
    const Weights c(40, 64, Type::bf16);
    Matrix part = c.w;
    part.n = 20;
    part.k = 50;
    part.ldw = 128;  // every other row
    for (int64_t m : {1, 12}) {
      const auto x = normal(m * 50, 3);
      std::vector<float> y(m * 20);
      matmul(x.data(), 50, m, part, nullptr, y.data(), 20, 0, 20);
      for (int64_t j = 0; j < 20; ++j) {
        double want = 0;
        for (int64_t t = 0; t < 50; ++t) want += double{x[(m - 1) * 50 + t]} * c.values[2 * j * 64 + t];
        ASSERT_NEAR(y[(m - 1) * 20 + j], want, 1e-4);
      }
    }
  });
}

TEST(Hgemm, RangesComputedApartEqualTheWhole) {
  for_each_isa([] {
    const Weights c(70, 131, Type::bf16);
    for (int64_t m : {1, 5, 14}) {
      const auto x = normal(m * 131, 4);
      std::vector<float> whole(m * 70), parts(m * 70);
      auto run = [&](std::vector<float>& y, int64_t a, int64_t b) { matmul(x.data(), 131, m, c.w, nullptr, y.data(), 70, a, b); };
      run(whole, 0, 70);
      run(parts, 48, 70);
      run(parts, 0, 16);
      run(parts, 16, 48);
      ASSERT_EQ(whole, parts);
    }
  });
}

}  // namespace
}  // namespace statera::kernels::hgemm
