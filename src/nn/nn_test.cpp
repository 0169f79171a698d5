// Attention against a plain loop, rotary tables against worked numbers, rounding against worked examples, the order inside a linear layer.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "nn/attend.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/rope.h"

namespace statera {
namespace {

// The definition, in double, one score at a time.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const SequenceBounds& bounds, bool causal, int64_t window) {
  const int64_t T = q.size(0), N = q.size(1), d = q.size(2), K = k.size(1);
  at::Tensor out = at::randn({T, N, d}, at::kDouble).zero_();
  auto qa = q.to(at::kDouble), ka = k.to(at::kDouble), va = v.to(at::kDouble);
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    for (int64_t i = bounds[s]; i < bounds[s + 1]; ++i) {
      for (int64_t n = 0; n < N; ++n) {
        std::vector<double> weight;
        std::vector<int64_t> key;
        double total = 0;
        for (int64_t j = bounds[s]; j < bounds[s + 1]; ++j) {
          if (causal && (j > i || (window > 0 && j <= i - window))) continue;
          weight.push_back(std::exp((qa[i][n] * ka[j][n / (N / K)]).sum().item<double>() / std::sqrt(static_cast<double>(d))));
          key.push_back(j);
          total += weight.back();
        }
        for (size_t m = 0; m < key.size(); ++m) out[i][n] += va[key[m]][n / (N / K)] * (weight[m] / total);
      }
    }
  }
  return out.reshape({T, N * d});
}

double difference(const at::Tensor& a, const at::Tensor& b) { return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>(); }

TEST(Attend, EqualsTheDefinitionForRaggedGroupedWindowedCases) {
  for (int64_t K : {1, 2, 4}) {
    for (int64_t window : {0, 3}) {
      for (bool causal : {true, false}) {
        if (!causal && window) continue;
        at::Tensor q = at::randn({11, 4, 8}), k = at::randn({11, K, 8}), v = at::randn({11, K, 8});
        Pass pass;
        pass.bounds = {0, 1, 6, 6, 11};
        AttendSite site;
        site.causal = causal;
        site.window = window;
        EXPECT_LT(difference(attend(q, k, v, site, pass), plain_attention(q, k, v, pass.bounds, causal, window)), 1e-5) << K << window << causal;
      }
    }
  }
}

TEST(Attend, PiecewiseThroughTheCacheEqualsOnePass) {
  at::Tensor q = at::randn({12, 4, 8}), k = at::randn({12, 2, 8}), v = at::randn({12, 2, 8});
  for (int64_t window : {0, 4}) {
    AttendSite site;
    site.window = window;
    Pass whole;
    whole.bounds = {0, 7, 12};
    at::Tensor expected = attend(q, k, v, site, whole);
    KvCache a(1), b(1);
    std::vector<at::Tensor> first, second;
    // pieces of both sequences, of unequal lengths, ending in single rows
    const std::vector<std::array<int64_t, 4>> pieces{{0, 3, 7, 9}, {3, 6, 9, 11}, {6, 7, 11, 12}};
    for (auto [a0, a1, b0, b1] : pieces) {
      auto both = [&, a0 = a0, a1 = a1, b0 = b0, b1 = b1](const at::Tensor& t) { return at::cat({t.slice(0, a0, a1), t.slice(0, b0, b1)}, 0); };
      Pass p;
      p.bounds = {0, a1 - a0, a1 - a0 + b1 - b0};
      p.caches = {&a, &b};
      at::Tensor y = attend(both(q), both(k), both(v), site, p);
      first.push_back(y.slice(0, 0, a1 - a0));
      second.push_back(y.slice(0, a1 - a0));
    }
    EXPECT_LT(difference(at::cat({at::cat(first, 0), at::cat(second, 0)}, 0), expected), 1e-5);
    EXPECT_EQ(a.length(), 7);
    EXPECT_EQ(b.length(), 5);
    b.truncate(2);
    EXPECT_EQ(b.length(), 2);
    EXPECT_THROW(b.truncate(3), Bug);
  }
}

TEST(Attend, RotatingQueriesAndKeysTogetherChangesNothing) {
  at::Tensor q = at::randn({5, 4, 8}), k = at::randn({5, 2, 8}), v = at::randn({5, 2, 8});
  Pass pass;
  pass.bounds = {0, 5};
  AttendSite plain, rotated;
  rotated.qk_rotation = std::get<0>(at::linalg_qr(at::randn({8, 8})));
  EXPECT_LT(difference(attend(q, k, v, plain, pass), attend(q, k, v, rotated, pass)), 1e-5);
}

TEST(RopeTables, InterleavedSectionsTakeTimeHeightAndWidthInTurn) {
  RopeConfig c;
  c.theta = 5e6;
  c.head_dim = 128;
  c.mrope_section = {24, 20, 20};
  c.mrope_interleaved = true;
  auto [cos, sin] = Rope(c).tables(at::tensor({10, 11, 12}, at::kLong).reshape({3, 1}), {0, 1});
  const double want[] = {-0.839072, -0.710458, 0.429227, 0.139877, -0.494822, -0.898505};
  for (int64_t i = 0; i < 6; ++i) EXPECT_NEAR(cos[0][i].item<double>(), want[i], 2e-6) << i;
  for (int64_t i = 60; i < 64; ++i) EXPECT_NEAR(sin[0][i].item<double>(), std::sin(10 * std::pow(5e6, -2.0 * static_cast<double>(i) / 128)), 1e-7) << i;
  EXPECT_EQ(cos.size(1), 128);
}

TEST(RopeTables, ImpossibleConfigsAreErrors) {
  RopeConfig c;
  c.head_dim = 128;
  c.mrope_section = {16, 24, 23};
  EXPECT_THROW(Rope{c}, Error);
  EXPECT_THROW(RopeConfig::from_config(Json::parse(R"({"rope_scaling": {"type": "magic"}})", "t"), 64, 1e4), Error);
  RopeConfig odd;
  odd.head_dim = 7;
  EXPECT_THROW(Rope{odd}, Error);
}

TEST(RopeTables, LongropeCachesEndAtTheTrainedLength) {
  RopeConfig c;
  c.kind = "longrope";
  c.head_dim = 4;
  c.original_max_position_embeddings = 8;
  c.max_position_embeddings = 32;
  c.short_factor = {1, 1};
  c.long_factor = {2, 4};
  Rope rope(c);
  EXPECT_TRUE(rope.cache_valid(3, 8));
  EXPECT_FALSE(rope.cache_valid(8, 9));
  EXPECT_TRUE(rope.cache_valid(9, 30));
}

TEST(RoundToNearest, WorkedMatrixOfTheFormat) {
  at::Tensor W = at::tensor({-.8, -.4, 0.0, .7, .1, .2, .3, 1.5, .75, -.75, .3, -.3, .05, -.05, 0.0, 0.0}, at::kFloat).reshape({2, 8});
  QTensor sym = rtn(W, {.bits = 4, .group = 4, .symmetric = true});
  EXPECT_TRUE(sym.q.equal(at::tensor({-8, -4, 0, 7, 0, 1, 2, 7, 7, -8, 3, -3, 7, -8, 0, 0}, at::kChar).reshape({2, 8}))) << sym.q;
  EXPECT_NEAR(sym.scale[0][0].item<double>(), .106667, 1e-6);
  EXPECT_NEAR(sym.scale[1][1].item<double>(), .00666667, 1e-8);
  EXPECT_FALSE(sym.zero.defined());
  QTensor asym = rtn(W, {.bits = 4, .group = 4, .symmetric = false});
  EXPECT_EQ(asym.zero[0][0].item<int>(), 0);
  EXPECT_EQ(asym.zero[0][1].item<int>(), -8);
  EXPECT_NEAR(asym.scale[0][0].item<double>(), .1, 1e-7);
  QTensor channel = rtn(W, {.bits = 4, .group = -1, .symmetric = true});
  EXPECT_NEAR(channel.scale[0][0].item<double>(), .2, 1e-7);
}

TEST(RoundToNearest, ErrorIsAtMostHalfAStepInsideTheRange) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (int64_t group : {int64_t{-1}, int64_t{16}, int64_t{20}}) {
      at::Tensor W = at::randn({7, 50});
      QTensor q = rtn(W, {.bits = bits, .group = group, .symmetric = false});
      EXPECT_EQ(q.scale.size(1), QSpec({.bits = bits, .group = group, .symmetric = false}).groups(50));
      at::Tensor step = rtn(W, q.spec).scale.max();
      // the zero point's own rounding may push an end of the range out by half a step more
      EXPECT_LE(difference(q.dequantize(), W), 1.001 * step.item<double>()) << bits;
      EXPECT_TRUE(rtn(q.dequantize(), q.spec).q.size(1) == 50);
    }
  }
}

TEST(RoundToNearest, AllZeroRowsKeepAFiniteScale) {
  QTensor q = rtn(at::randn({2, 8}).zero_(), {.bits = 4, .group = 4, .symmetric = true});
  EXPECT_GT(q.scale.min().item<double>(), 0);
  EXPECT_EQ(q.dequantize().abs().max().item<double>(), 0);
  EXPECT_THROW(rtn(at::randn({2, 8}), {.bits = 9, .group = 4, .symmetric = true}), Error);
}

class Recorder : public Tap {
 public:
  at::Tensor x, y;
  void linear(const LinearSite&, const at::Tensor& x_TK, const at::Tensor& y_TN, const Pass&) override {
    x = x_TK;
    y = y_TN;
  }
};

TEST(LinearLayer, TheTapSeesRotatedUnquantizedInputAndFinalOutput) {
  auto site = std::make_shared<LinearSite>();
  site->path = "p";
  site->out = 3;
  site->in = 4;
  at::Tensor W = at::randn({3, 4}), R = std::get<0>(at::linalg_qr(at::randn({4, 4})));
  site->weight = make_dense(at::matmul(W, R));
  site->bias = at::randn({3});
  site->input_rotation = R;
  site->adapter = std::make_shared<Adapter>(Adapter{at::randn({2, 4}), at::randn({3, 2}), 0.5});
  Recorder tap;
  Pass pass;
  pass.tap = &tap;
  at::Tensor x = at::randn({2, 5, 4});
  at::Tensor y = Linear{site}(x, pass);
  at::Tensor rotated = at::matmul(x.reshape({10, 4}), R);
  EXPECT_LT(difference(tap.x, rotated), 1e-6);
  at::Tensor expected = at::linear(x.reshape({10, 4}), W, site->bias) + at::matmul(at::matmul(rotated, site->adapter->A.t()), site->adapter->B.t()) * 0.5;
  EXPECT_LT(difference(y.reshape({10, 3}), expected), 1e-5);
  EXPECT_LT(difference(tap.y, expected), 1e-5);
  site->act = ActQuant{};
  Linear{site}(x, pass);
  EXPECT_LT(difference(tap.x, rotated), 1e-6);
}

TEST(LinearLayer, HalfPrecisionWeightsWithFp32RowsEqualTheirConversion) {
  for (auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    for (int64_t rows : {1, 3, 8, 9, 40}) {
      at::Tensor W = at::randn({37, 50}).to(dtype), x = at::randn({rows, 50});
      EXPECT_LT(difference(make_dense(W)->apply(x, nullptr), at::linear(x, W.to(at::kFloat))), 2e-5) << rows;
    }
  }
}

// Summed in fp32 and rounded once, whatever the weights are stored in.
TEST(LinearLayer, RowsOf16BitsAreMultipliedInFp32AndRoundedOnce) {
  for (auto dtype : {at::kBFloat16, at::kHalf}) {
    for (auto stored : {at::kBFloat16, at::kHalf, at::kFloat}) {
      for (int64_t rows : {1, 9, 40}) {
        const at::Tensor W = at::randn({37, 50}).to(stored), x = at::randn({rows, 50}).to(dtype);
        const at::Tensor in_fp32 = make_dense(W)->apply(x.to(at::kFloat), nullptr);
        for (const at::Tensor& layout : {W, W.t().contiguous().t()}) {
          const at::Tensor y = make_dense(layout)->apply(x, nullptr);
          EXPECT_EQ(y.scalar_type(), dtype);
          EXPECT_LE(difference(y.to(at::kFloat), in_fp32.to(dtype).to(at::kFloat)), dtype == at::kHalf ? 0x1p-6 : 0x1p-3);  // a step where sums lie on an edge
          EXPECT_TRUE(y.equal(in_fp32.to(dtype)) || !layout.is_contiguous()) << rows;
        }
      }
    }
  }
}

}  // namespace
}  // namespace statera
