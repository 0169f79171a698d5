// Attention in integers: against its rules in double, on every instruction set; what it costs against the exact one; and its weights, bit for
// bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/attn/attn.h"
#include "kernels/cpu.h"
#include "kernels/isa_test.h"

namespace statera::kernels::attn {
namespace {

struct Codes {
  std::vector<double> values;  // what the codes stand for
  explicit Codes(const std::vector<float>& x) {
    float most = 0;
    for (float v : x) most = std::max(most, std::fabs(v));
    const float scale = most / 127.5f;
    for (float v : x) values.push_back(scale > 0 ? double{std::clamp(std::nearbyint(v / scale), -128.0f, 127.0f)} * scale : 0.0);
  }
};

// q, k and v as one product leaves them.
struct Case {
  Shape shape;
  std::vector<float> rows, out;
  Sequence s;
  Case(int64_t heads, int64_t key_heads, int64_t d, int64_t dv, int64_t queries, int64_t keys)
      : shape{.heads = heads, .key_heads = key_heads, .d = d, .dv = dv, .scale = 1 / std::sqrt(static_cast<float>(d)), .causal = false, .window = 0} {
    const int64_t width = heads * d + key_heads * (d + dv) + 3;
    rows = normal(static_cast<size_t>(std::max(queries, keys) * width), 1);
    out.assign(static_cast<size_t>(queries * (heads * dv + 1)), NAN);
    const float *k = rows.data() + heads * d, *v = k + key_heads * d;
    s = {.q = {rows.data(), width, d}, .k = {k, width, d}, .v = {v, width, dv}, .out = out.data(), .out_row = heads * dv + 1, .queries = queries, .keys = keys};
  }
  float* key(int64_t j, int64_t head) { return rows.data() + j * s.k.row + shape.heads * shape.d + head * shape.d; }
  float* value(int64_t j, int64_t head) { return rows.data() + j * s.v.row + (shape.heads + shape.key_heads) * shape.d + head * shape.dv; }
  void run() {
    const int64_t size = coded_size(shape);
    std::vector<uint8_t> memory(static_cast<size_t>(blocks(s.keys) * size + 64), 0xcd);
    uint8_t* packed = memory.data() + 63 - (reinterpret_cast<uintptr_t>(memory.data()) + 63) % 64;
    std::vector<float> mean(static_cast<size_t>(shape.d));
    for (int64_t j = 0; j < shape.key_heads; ++j) {
      mean_key(s, shape, j, mean.data());
      for (int64_t b = 0; b < blocks(s.keys); ++b) pack_coded(s, shape, j, b, mean.data(), packed + b * size);
      for (int64_t h = j * shape.group(); h < (j + 1) * shape.group(); ++h)
        for (int64_t t = 0; t < tiles(s.queries); ++t) run_coded_tile(s, shape, h, t, packed);
    }
  }
  std::vector<float> exact() const {
    std::vector<float> got(out.size(), NAN);
    Sequence to = s;
    to.out = got.data();
    std::vector<float> packed(static_cast<size_t>(blocks(s.keys) * packed_size(shape)));
    for (int64_t h = 0; h < shape.heads; ++h) {
      for (int64_t b = 0; b < blocks(s.keys); ++b) pack(to, shape, h / shape.group(), b, packed.data() + b * packed_size(shape));
      for (int64_t t = 0; t < tiles(s.queries); ++t) run_tile(to, shape, h, t, packed.data());
    }
    return got;
  }
  // The rules, written down once more. Sums in f32 may put a weight that lies between two codes on the other of them: 1/127 of the total, times
  // values of size 3 and a little.
  void expect_rules() {
    for (int64_t h = 0; h < shape.heads; ++h) {
      const int64_t j = h / shape.group();
      std::vector<float> mean(static_cast<size_t>(shape.d));
      mean_key(s, shape, j, mean.data());
      std::vector<Codes> keys;
      for (int64_t t = 0; t < s.keys; ++t) {
        std::vector<float> less(key(t, j), key(t, j) + shape.d);
        for (int64_t c = 0; c < shape.d; ++c) less[static_cast<size_t>(c)] -= mean[static_cast<size_t>(c)];
        keys.emplace_back(less);
      }
      std::vector<Codes> columns;  // of each block
      for (int64_t b = 0; b < blocks(s.keys); ++b)
        for (int64_t c = 0; c < shape.dv; ++c) {
          std::vector<float> column;
          for (int64_t t = b * kKeys; t < std::min(s.keys, (b + 1) * kKeys); ++t) column.push_back(value(t, j)[c]);
          columns.emplace_back(column);
        }
      for (int64_t i = 0; i < s.queries; ++i) {
        std::vector<float> q(s.q.at(i, h), s.q.at(i, h) + shape.d);
        for (float& v : q) v *= shape.scale * static_cast<float>(M_LOG2E);
        const Codes query(q);
        std::vector<double> want(static_cast<size_t>(shape.dv)), score;
        double total = 0, top = -INFINITY;
        for (const Codes& k : keys) {
          score.push_back(0);
          for (size_t c = 0; c < k.values.size(); ++c) score.back() += query.values[c] * k.values[c];
          top = std::max(top, score.back());
        }
        for (int64_t b = 0; b < blocks(s.keys); ++b) {
          const auto begin = score.begin() + b * kKeys, end = score.begin() + std::min(s.keys, (b + 1) * kKeys);
          const double most = *std::max_element(begin, end), unit = std::exp2(most - top) / 127;
          for (auto it = begin; it != end; ++it) {
            const double weight = std::nearbyint(127 * std::exp2(*it - most)) * unit;
            total += weight;
            for (int64_t c = 0; c < shape.dv; ++c)
              want[static_cast<size_t>(c)] += weight * columns[static_cast<size_t>(b * shape.dv + c)].values[static_cast<size_t>(it - begin)];
          }
        }
        for (int64_t c = 0; c < shape.dv; ++c)
          ASSERT_NEAR(s.out[i * s.out_row + h * shape.dv + c], want[static_cast<size_t>(c)] / total, 1e-4 + 6.0 / 127 / total) << "query " << i << " head " << h << " column " << c;
        ASSERT_TRUE(std::isnan(s.out[i * s.out_row + shape.heads * shape.dv])) << "wrote past the heads";
      }
    }
  }
};

TEST(CodedAttn, EqualsItsRulesForEveryWidthOfHeads) {
  for_each_isa([] {
    for (int64_t d : {4, 8, 20, 64, 72, 80, 96, 128, 160, 256}) {
      SCOPED_TRACE(d);
      Case c(2, 1, d, d, 37, 150);
      c.run();
      c.expect_rules();
    }
    Case c(2, 2, 24, 40, 20, 33);  // values of another width
    c.run();
    c.expect_rules();
  });
}

TEST(CodedAttn, EqualsItsRulesForRaggedLengths) {
  for_each_isa([] {
    const std::pair<int64_t, int64_t> lengths[] = {{1, 1}, {2, 2}, {9, 17}, {96, 128}, {97, 129}, {103, 192}, {200, 300}, {5, 260}};
    for (const auto& [queries, keys] : lengths) {
      SCOPED_TRACE(testing::Message() << queries << " of " << keys);
      Case c(3, 3, 16, 16, queries, keys);
      c.run();
      c.expect_rules();
    }
  });
}

double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  int64_t n = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    sum += std::fabs(double{a[i]} - b[i]);
    ++n;
  }
  return sum / static_cast<double>(n);
}

// Outputs are of size 0.05 to 0.3 here.
TEST(CodedAttn, CostsLittleAgainstTheExactOne) {
  for_each_isa([] {
    for (int64_t keys : {60, 700}) {
      Case c(2, 2, 80, 80, 50, keys);
      c.run();
      EXPECT_LT(mean_difference(c.out, c.exact()), 0.0025) << keys;
    }
  });
}

// What all keys share moves all scores of a query alike; codes of keys need not carry it.
TEST(CodedAttn, WhatAllKeysShareCostsNothing) {
  for_each_isa([] {
    Case c(1, 1, 64, 64, 40, 200);
    c.run();
    const std::vector<float> before = c.out;
    for (int64_t t = 0; t < 200; ++t)
      for (int64_t i = 0; i < 64; i += 5) c.key(t, 0)[i] += 60;
    c.run();
    EXPECT_LT(mean_difference(c.out, before), 2e-4);
  });
}

TEST(CodedAttn, LargeScoresNeitherOverflowNorVanish) {
  for_each_isa([] {
    Case c(1, 1, 64, 64, 40, 300);
    for (float& v : c.rows) v *= 20;
    c.run();
    const std::vector<float> exact = c.exact();
    for (size_t i = 0; i < c.out.size(); ++i) ASSERT_EQ(std::isfinite(c.out[i]), std::isfinite(exact[i]));
  });
}

TEST(CodedAttn, ANumberThatIsNoneStaysSo) {
  for_each_isa([] {
    Case query(1, 1, 16, 16, 30, 150);
    query.rows[static_cast<size_t>(7 * query.s.q.row + 3)] = NAN;
    query.run();
    for (int64_t i = 0; i < 30; ++i) ASSERT_EQ(std::isnan(query.out[static_cast<size_t>(i * query.s.out_row)]), i == 7) << i;
    for (float bad : {NAN, INFINITY}) {
      Case key(1, 1, 16, 16, 30, 150), value(1, 1, 16, 16, 30, 150);
      key.key(140, 0)[3] = bad;
      value.value(20, 0)[3] = bad;
      key.run();
      value.run();
      for (int64_t i = 0; i < 30; ++i) {
        ASSERT_TRUE(std::isnan(key.out[static_cast<size_t>(i * key.s.out_row)])) << i;
        ASSERT_FALSE(std::isfinite(value.out[static_cast<size_t>(i * value.s.out_row + 3)])) << i;
        ASSERT_TRUE(std::isfinite(value.out[static_cast<size_t>(i * value.s.out_row + 4)])) << i;
      }
    }
  });
}

const Table& table_of_isa() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }

TEST(CodedAttn, WeightsAreBitEqualOnEveryInstructionSet) {
  std::vector<float> x = normal(4000, 3);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= i % 3 ? 4.0f : 30.0f;
  for_each_isa([&] {
    for (int64_t n : {1, 7, 8, 16, 31, 100, 128}) {
      for (int64_t from = 0; from + n < 4000; from += 391) {
        std::vector<int8_t> want(128, 77), got(128, 77);
        float most = 0, top = 1;
        const int32_t sum = kScalar.weights(x.data() + from, n, want.data(), &most);
        ASSERT_EQ(table_of_isa().weights(x.data() + from, n, got.data(), &top), sum);
        ASSERT_EQ(most, top);
        ASSERT_EQ(want, got) << n << " from " << from;
        ASSERT_EQ(*std::max_element(want.begin(), want.begin() + n), 127);
      }
    }
    for (float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> row(x.begin(), x.begin() + 40);
      row[37] = bad;
      std::vector<int8_t> got(40, 77);
      float top = 1;
      EXPECT_EQ(table_of_isa().weights(row.data(), 40, got.data(), &top), 0);
      EXPECT_TRUE(std::isnan(top));
      EXPECT_EQ(got, std::vector<int8_t>(40, 0));
    }
  });
}

TEST(CodedAttn, PowersOfTwoAreNearAndBitEqual) {
  std::vector<float> x;
  for (int i = 0; i <= 4001; ++i) x.push_back(-static_cast<float>(i) / 31);
  x.insert(x.end(), {-INFINITY, NAN, -1e30f});
  for_each_isa([&] {
    std::vector<float> want = x, got = x;
    kScalar.exp2(want.data(), static_cast<int64_t>(want.size()));
    table_of_isa().exp2(got.data(), static_cast<int64_t>(got.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) {
        ASSERT_TRUE(std::isnan(got[i]) && std::isnan(want[i]));
        continue;
      }
      ASSERT_EQ(want[i], got[i]) << x[i];
      const double exact = std::exp2(std::max(-126.0, double{x[i]}));
      ASSERT_NEAR(got[i] / exact, 1, 3.1e-6) << x[i];
    }
  });
}

}  // namespace
}  // namespace statera::kernels::attn
