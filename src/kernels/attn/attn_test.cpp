// Attention against its definition in double, on every instruction set: ragged sizes, groups of heads, windows, both ways to compute it, and
// keys and values as a cache stores them, held against the definition over what they stand for.
#include "kernels/attn/attn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/isa_test.h"

namespace statera::kernels::attn {
namespace {

// q, k and v as one product leaves them: rows that hold the heads of all three, and something between.
struct Case {
  Shape shape;
  int64_t queries, keys;
  std::vector<float> rows, out, scales[2];
  std::vector<uint8_t> bytes[2];
  Sequence s;
  View k, v;  // their values

  Case(const Shape& of, int64_t queries_in, int64_t keys_in, float size = 1, Form form = Form::f32) : shape(of), queries(queries_in), keys(keys_in) {
    const int64_t N = shape.heads, K = shape.key_heads, width = N * shape.d + K * shape.d + K * shape.dv + 3;
    rows = normal(static_cast<size_t>(keys * width), 1);
    for (float& x : rows) x *= size;
    k = {rows.data() + N * shape.d, width, shape.d};
    v = {rows.data() + (N + K) * shape.d, width, shape.dv};
    out.assign(static_cast<size_t>(queries * (N * shape.dv + 2)), NAN);
    s = {.q = {rows.data(), width, shape.d}, .k = {k.data, k.row, k.head}, .v = {v.data, v.row, v.head},
         .out = out.data(), .out_row = N * shape.dv + 2, .queries = queries, .keys = keys};
    if (form == Form::f32) return;
    s.k = stored(k, shape.d, form, 0);
    s.v = stored(v, shape.dv, form, 1);
  }
  // Stores what x sees, a head after the other and a row to spare, and puts the rounded values in its place.
  Stored stored(const View& x, int64_t d, Form form, int which) {
    const int64_t size = form == Form::f16 ? 2 : 1, head = (keys + 1) * d;
    bytes[which].resize(static_cast<size_t>(shape.key_heads * head * size));
    scales[which].assign(static_cast<size_t>(shape.key_heads * (keys + 2)), NAN);
    Stored out_of{bytes[which].data(), d, head, form, scales[which].data(), keys + 2};
    for (int64_t h = 0; h < shape.key_heads; ++h)
      for (int64_t t = 0; t < keys; ++t) {
        float* row = rows.data() + (x.at(t, h) - rows.data());
        EXPECT_TRUE(store(row, d, form, bytes[which].data() + (h * head + t * d) * size, scales[which].data() + h * (keys + 2) + t));
        float most = 0;
        for (int64_t c = 0; c < d; ++c) most = std::max(most, std::fabs(row[c]));
        const float scale = most / 127.5f;
        for (int64_t c = 0; c < d; ++c) row[c] = form == Form::f16 ? static_cast<float>(static_cast<_Float16>(row[c])) : std::min(127.0f, std::nearbyint(row[c] / scale)) * scale;
      }
    return out_of;
  }
  void by_tiles() {
    for (int64_t j = 0; j < shape.key_heads; ++j) {
      std::vector<float> packed(static_cast<size_t>(blocks(keys) * packed_size(shape)), NAN);
      for (int64_t b = 0; b < blocks(keys); ++b) pack(s, shape, j, b, packed.data() + b * packed_size(shape));
      for (int64_t h = j * shape.group(); h < (j + 1) * shape.group(); ++h)
        for (int64_t t = 0; t < tiles(queries); ++t) run_tile(s, shape, h, t, packed.data());
    }
  }
  void by_parts() {
    for (int64_t j = 0; j < shape.key_heads; ++j) {
      std::vector<float> to(static_cast<size_t>(parts(keys) * part_size(queries, shape)), NAN);
      for (int64_t p = parts(keys) - 1; p >= 0; --p) run_part(s, shape, j, p, to.data() + p * part_size(queries, shape));
      merge(s, shape, j, to.data());
    }
  }
  void expect_definition() const {
    for (int64_t i = 0; i < queries; ++i)
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t j = h / shape.group(), end = shape.causal ? keys - queries + i + 1 : keys;
        std::vector<double> p(static_cast<size_t>(keys), 0), want(static_cast<size_t>(shape.dv), 0);
        double most = -INFINITY, total = 0;
        const int64_t begin = shape.window > 0 ? std::max<int64_t>(0, end - shape.window) : 0;
        for (int64_t t = begin; t < end; ++t) {
          for (int64_t c = 0; c < shape.d; ++c) p[static_cast<size_t>(t)] += double{shape.scale} * s.q.at(i, h)[c] * k.at(t, j)[c];
          most = std::max(most, p[static_cast<size_t>(t)]);
        }
        for (int64_t t = begin; t < end; ++t) {
          const double weight = std::exp(p[static_cast<size_t>(t)] - most);
          total += weight;
          for (int64_t c = 0; c < shape.dv; ++c) want[static_cast<size_t>(c)] += weight * v.at(t, j)[c];
        }
        for (int64_t c = 0; c < shape.dv; ++c)
          ASSERT_NEAR(s.out[i * s.out_row + h * shape.dv + c], want[static_cast<size_t>(c)] / total, 2e-5)
              << "query " << i << " head " << h << " column " << c << ": " << queries << " of " << keys << ", d " << shape.d << ", window " << shape.window;
      }
    for (int64_t i = 0; i < queries; ++i)
      for (int64_t c = 0; c < 2; ++c) ASSERT_TRUE(std::isnan(s.out[i * s.out_row + shape.heads * shape.dv + c])) << "wrote past the heads";
  }
};

Shape shape_of(int64_t heads, int64_t key_heads, int64_t d, int64_t dv) {
  return {.heads = heads, .key_heads = key_heads, .d = d, .dv = dv, .scale = 1 / std::sqrt(static_cast<float>(d)), .causal = true, .window = 0};
}

TEST(Attn, TilesEqualTheDefinitionForEveryWidthOfHeads) {
  for_each_isa([] {
    for (int64_t d : {4, 8, 20, 64, 72, 80, 96, 128, 160, 256}) {
      for (bool causal : {true, false}) {
        Shape shape = shape_of(2, 1, d, d);
        shape.causal = causal;
        Case c(shape, 37, 150);
        c.by_tiles();
        c.expect_definition();
      }
    }
    Case c(shape_of(2, 1, 24, 40), 20, 33);  // values of another width
    c.by_tiles();
    c.expect_definition();
  });
}

TEST(Attn, TilesEqualTheDefinitionForRaggedLengthsAndWindows) {
  for_each_isa([] {
    const std::pair<int64_t, int64_t> lengths[] = {{1, 1}, {2, 2}, {17, 17}, {96, 128}, {97, 129}, {200, 300}, {5, 260}, {130, 130}};
    for (const auto& [queries, keys] : lengths) {
      for (int64_t window : {0, 1, 7, 128, 1000}) {
        Shape shape = shape_of(3, 3, 16, 16);
        shape.window = window;
        Case c(shape, queries, keys);
        c.by_tiles();
        c.expect_definition();
      }
    }
  });
}

TEST(Attn, PartsEqualTheDefinitionForGroupsOfHeadsAndLongCaches) {
  for_each_isa([] {
    const std::pair<int64_t, int64_t> heads[] = {{1, 1}, {2, 2}, {6, 2}, {7, 1}, {8, 1}, {20, 2}, {32, 1}};
    for (const auto& [N, K] : heads) {
      for (int64_t keys : {1, 15, 128, 257, 600}) {
        for (int64_t window : {0, 5, 300}) {
          for (int64_t queries : {1, 3}) {
            Shape shape = shape_of(N, K, 24, 40);
            shape.window = window;
            if (!few(queries, shape) || queries > keys) continue;
            Case c(shape, queries, keys);
            c.by_parts();
            c.expect_definition();
          }
        }
      }
    }
    for (int64_t d : {8, 64, 72, 80, 96, 128, 256}) {
      Case c(shape_of(4, 1, d, d), 1, 300);
      c.by_parts();
      c.expect_definition();
    }
  });
}

TEST(Attn, PartsOfAVeryLongCacheAreAllWeighed) {
  for_each_isa([] {
    Case c(shape_of(1, 1, 8, 8), 1, kPartKeys * (kKeys + 1) + 1);
    c.by_parts();
    c.expect_definition();
  });
}

constexpr Form kRounded[] = {Form::f16, Form::i8};

TEST(Attn, StoredKeysAndValuesCountAsWhatTheyStandFor) {
  for_each_isa([] {
    for (Form form : kRounded) {
      const std::pair<int64_t, int64_t> heads[] = {{1, 1}, {2, 1}, {6, 2}, {5, 1}, {7, 1}, {8, 1}, {20, 2}};
      for (const auto& [N, K] : heads) {
        for (int64_t keys : {1, 15, 129, 300}) {
          for (int64_t window : {0, 70}) {
            Shape shape = shape_of(N, K, 24, 43);
            shape.window = window;
            Case few_queries(shape, 1, keys, 1, form);
            few_queries.by_parts();
            few_queries.expect_definition();
            Case many(shape, std::min<int64_t>(keys, 130), keys, 1, form);
            many.by_tiles();
            many.expect_definition();
          }
        }
      }
      for (int64_t d : {4, 7, 64, 80, 128, 160, 256}) {
        Case one(shape_of(4, 1, d, d), 1, 300, 1, form), many(shape_of(4, 1, d, d), 20, 150, 1, form);
        one.by_parts();
        one.expect_definition();
        many.by_tiles();
        many.expect_definition();
      }
    }
  });
}

TEST(Attn, TilesOverStoredRowsEqualTilesOverTheirValuesBitForBit) {
  for_each_isa([] {
    for (Form form : kRounded) {
      Case c(shape_of(2, 1, 80, 80), 100, 200, 1, form);
      c.by_tiles();
      const std::vector<float> out = c.out;
      c.s.k = {c.k.data, c.k.row, c.k.head};
      c.s.v = {c.v.data, c.v.row, c.v.head};
      c.by_tiles();
      ASSERT_EQ(std::memcmp(out.data(), c.out.data(), out.size() * sizeof(float)), 0);
    }
  });
}

TEST(Attn, HalvesAreThoseOfTheCompilerAndWhatDoesNotFitIsSaid) {
  for_each_isa([] {
    std::vector<float> x;
    std::mt19937 rng(5);
    for (int i = 0; i < 40000; ++i) {
      const uint32_t bits = rng();
      float f;
      std::memcpy(&f, &bits, sizeof f);
      x.push_back(i % 2 ? std::ldexp(static_cast<float>(rng() % 8192 + 2048) / 2, static_cast<int>(rng() % 30) - 26) : f);  // half of them ties or near
      if (std::isfinite(x.back()) && std::fabs(x.back()) >= 65520) x.back() = 65519;
    }
    for (float f : {0.0f, -0.0f, 65504.0f, -65519.9f, 0x1p-24f, 0x1p-25f, 0x1.8p-24f, INFINITY, -INFINITY, NAN}) x.push_back(f);
    for (size_t n : {size_t{1}, size_t{7}, size_t{19}, x.size()}) {
      std::vector<uint16_t> got(n + 1, 777);
      ASSERT_TRUE(store(x.data() + x.size() - n, static_cast<int64_t>(n), Form::f16, got.data(), nullptr));
      for (size_t i = 0; i < n; ++i) {
        const float f = x[x.size() - n + i];
        const auto half = static_cast<_Float16>(f);
        uint16_t want;
        std::memcpy(&want, &half, sizeof want);
        if (std::isnan(f))
          ASSERT_GT(got[i] & 0x7fff, 0x7c00);
        else
          ASSERT_EQ(got[i], want) << f;
      }
      ASSERT_EQ(got[n], 777) << "wrote past the row";
    }
    for (int64_t at : {0, 9, 18}) {
      std::vector<float> row(19, 1.0f);
      std::vector<uint16_t> to(19);
      row[static_cast<size_t>(at)] = -65520;
      EXPECT_FALSE(store(row.data(), 19, Form::f16, to.data(), nullptr)) << at;
    }
  });
}

// exp(score) alone would overflow or vanish.
TEST(Attn, LargeScoresNeitherOverflowNorVanish) {
  for_each_isa([] {
    for (bool parts : {false, true}) {
      Case c(shape_of(2, 1, 64, 64), parts ? 1 : 40, 300, 20);
      parts ? c.by_parts() : c.by_tiles();
      for (int64_t i = 0; i < c.queries; ++i)
        for (int64_t n = 0; n < 128; ++n) ASSERT_TRUE(std::isfinite(c.s.out[i * c.s.out_row + n]));
    }
  });
}

TEST(Attn, ANumberThatIsNoneStaysSo) {
  for_each_isa([] {
    Case c(shape_of(1, 1, 16, 16), 30, 30);
    c.rows[static_cast<size_t>(7 * c.s.q.row + 3)] = NAN;  // of query 7
    c.by_tiles();
    for (int64_t i = 0; i < 30; ++i) ASSERT_EQ(std::isnan(c.s.out[i * c.s.out_row]), i == 7) << i;
  });
}

}  // namespace
}  // namespace statera::kernels::attn
