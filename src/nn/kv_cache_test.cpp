// What a cache keeps of keys and values in each form, and attention over it: equal to attention over the rounded rows, and as near to attention
// over the exact ones as the rounding allows.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "nn/attend.h"
#include "nn/kv_cache.h"
#include "nn/weight.h"

namespace statera {
namespace {

constexpr KvForm kForms[] = {KvForm::automatic, KvForm::fp16, KvForm::int8};

// The definition: each row and head on its own grid.
at::Tensor rounded(const at::Tensor& x_TKd, KvForm form) {
  if (form == KvForm::fp16) return x_TKd.to(at::kHalf).to(x_TKd.scalar_type());
  return form == KvForm::int8 ? fake_quantize(x_TKd.flatten(0, 1), ActQuant{8}).view_as(x_TKd) : x_TKd;
}

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

struct Inputs {
  at::Tensor q, k, v;
  Inputs(int64_t T, int64_t N, int64_t K, int64_t d, int64_t dv) : q(at::randn({T, N, d})), k(at::randn({T, K, d})), v(at::randn({T, K, dv})) {}
};

// One sequence in pieces through a cache: `first` rows, then one row at a time.
at::Tensor through(KvCache& cache, const Inputs& x, const AttendSite& site, int64_t first) {
  std::vector<at::Tensor> out;
  for (int64_t begin = 0, rows = first; begin < x.q.size(0); begin += rows, rows = 1) {
    Pass pass;
    pass.bounds = one_sequence(rows);
    pass.caches = {&cache};
    out.push_back(attend(x.q.slice(0, begin, begin + rows), x.k.slice(0, begin, begin + rows), x.v.slice(0, begin, begin + rows), site, pass));
  }
  return at::cat(out, 0);
}

at::Tensor over(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendSite& site) {
  Pass pass;
  pass.bounds = one_sequence(q.size(0));
  return attend(q, k, v, site, pass);
}

TEST(KvCache, KeepsRowsAsTheirFormRoundsThemWhileItGrowsAndAfterTruncation) {
  for (KvForm form : kForms) {
    KvCache cache(2, form);
    const at::Tensor k = at::randn({300, 3, 20}), v = at::randn({300, 3, 12});
    for (int64_t begin = 0, rows = 5; begin < 300; begin += rows, rows = begin == 5 ? 1 : 98) {
      for (int64_t layer : {0, 1}) {
        const int64_t end = std::min<int64_t>(300, begin + rows);
        // strided, as slices of one product are
        cache.append(layer, at::cat({k, k}, 1).slice(0, begin, end).slice(1, 3), v.slice(0, begin, end));
      }
    }
    cache.truncate(280);
    for (int64_t layer : {0, 1}) cache.append(layer, k.slice(0, 280), v.slice(0, 280));
    EXPECT_EQ(cache.length(1), 300);
    for (int64_t layer : {0, 1}) {
      const auto [keys, values] = cache.rows(layer, at::kFloat);
      EXPECT_TRUE(keys.equal(rounded(k, form)));
      EXPECT_TRUE(values.equal(rounded(v, form)));
    }
    EXPECT_THROW(cache.truncate(301), Bug);
  }
}

TEST(KvCache, BytesAreThoseOfTheRowsItHasRoomFor) {
  for (KvForm form : kForms) {
    KvCache cache(2, form);
    EXPECT_EQ(cache.bytes(), 0);
    const at::Tensor k = at::randn({70, 3, 20}), v = at::randn({70, 3, 12});
    for (int64_t layer : {0, 1}) cache.append(layer, k, v);
    const int64_t row = kv_row_bytes(form, 20, at::kFloat) + kv_row_bytes(form, 12, at::kFloat);
    EXPECT_EQ(cache.bytes(), 2 * 70 * 3 * row);
    EXPECT_EQ(row, form == KvForm::automatic ? 128 : form == KvForm::fp16 ? 64 : 40);
  }
}

TEST(KvCache, SixteenBitActivationsAreKeptAsTheyAreOrRoundedFromThere) {
  const at::Tensor k = at::randn({9, 2, 16}).to(at::kBFloat16), v = at::randn({9, 2, 16}).to(at::kBFloat16), q = at::randn({9, 4, 16}).to(at::kBFloat16);
  for (KvForm form : kForms) {
    KvCache cache(1, form);
    Pass pass;
    pass.bounds = one_sequence(9);
    pass.caches = {&cache};
    const at::Tensor y = attend(q, k, v, {}, pass);
    EXPECT_EQ(cache.keys(0).data.scalar_type(), form == KvForm::automatic ? at::kBFloat16 : form == KvForm::fp16 ? at::kHalf : at::kChar);
    const at::Tensor keys = rounded(k.to(at::kFloat), form).to(at::kBFloat16), values = rounded(v.to(at::kFloat), form).to(at::kBFloat16);
    EXPECT_TRUE(cache.rows(0, at::kBFloat16).first.equal(keys));
    EXPECT_LT(difference(y.to(at::kFloat), over(q, keys, values, {}).to(at::kFloat)), 1e-6);
  }
}

TEST(KvCache, WhatFp16CannotHoldIsAnErrorThatNamesTheLayer) {
  KvCache cache(2, KvForm::fp16);
  at::Tensor k = at::randn({3, 2, 8});
  cache.append(0, k * 1e4, k);
  k[1][1][7] = 7e4;
  try {
    cache.append(1, at::randn({3, 2, 8}), k);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
    EXPECT_EQ(std::string(e.message()), "layer 1: a value is beyond the 65504 that fp16 holds (--kv-cache auto or int8)");
  }
  KvCache codes(1, KvForm::int8);
  codes.append(0, k, k);
  EXPECT_EQ(codes.rows(0, at::kFloat).first[1][1][7].item<float>(), 7e4f / 127.5f * 127);
}

TEST(KvCache, FormsHaveNames) {
  EXPECT_EQ(parse_kv_form("auto"), KvForm::automatic);
  EXPECT_EQ(parse_kv_form("fp16"), KvForm::fp16);
  EXPECT_EQ(parse_kv_form("int8"), KvForm::int8);
  EXPECT_THROW(parse_kv_form("int4"), Error);
}

TEST(KvCache, AttentionOverItIsAttentionOverTheRoundedRows) {
  for (KvForm form : kForms) {
    for (const auto& [N, K, d, dv] : {std::array<int64_t, 4>{12, 2, 64, 64}, {4, 4, 72, 72}, {7, 1, 128, 40}, {4, 2, 10, 6}}) {
      for (int64_t window : {0, 100}) {
        const Inputs x(430, N, K, d, dv);
        AttendSite site;
        site.window = window;
        KvCache cache(1, form);
        const at::Tensor want = over(x.q, rounded(x.k, form), rounded(x.v, form), site), y = through(cache, x, site, 400);
        EXPECT_TRUE(y.slice(0, 0, 400).equal(want.slice(0, 0, 400))) << "prompts differ by their rounding only";
        EXPECT_LT(difference(y, want), 5e-6) << d << " " << window;
      }
    }
  }
}

// Of a key with scale s each element is off by s / 2 at most, so a score by e = scale |q|_1 s / 2, a weight by the factor exp(2 e) at most, and the
// sum of values by (exp(2 e) - 1) max|v|, besides the values' own s / 2.
TEST(KvCache, EightBitsStayWithinTheBoundOfTheirRounding) {
  for (double size : {0.1, 1.0, 4.0}) {
    Inputs x(200, 6, 2, 64, 64);
    x.k = x.k * size;
    x.v = x.v * size;
    AttendSite site;
    KvCache cache(1, KvForm::int8);
    const at::Tensor y = through(cache, x, site, 150), exact = over(x.q, x.k, x.v, site);
    const double k_half = x.k.abs().max().item<double>() / 255, v_most = x.v.abs().max().item<double>();
    const at::Tensor e = x.q.abs().sum(-1).to(at::kDouble) / 8 * k_half;  // [T, N]
    const at::Tensor bound = ((e * 2).expm1() * v_most + v_most / 255).unsqueeze(2);
    const at::Tensor off = (y - exact).abs().view({200, 6, 64}).to(at::kDouble);
    EXPECT_TRUE((off <= bound + 1e-6).all().item<bool>()) << size;
    EXPECT_GT(off.max().item<double>(), 1e-4 * size) << "nothing was rounded";
    // The bound takes every error at its worst; errors that are independent leave about a hundredth of what a value is.
    EXPECT_LT(off.square().mean().sqrt().item<double>(), 0.01 * x.v.square().mean().sqrt().item<double>() * std::max(1.0, size)) << size;
  }
}

TEST(KvCache, NeitherThreadsNorNeighboursChangeABit) {
  const int before = num_threads();
  for (KvForm form : {KvForm::fp16, KvForm::int8}) {
    const Inputs x(1100, 4, 2, 48, 48);
    at::Tensor first;
    for (int threads : {1, 2, 5}) {
      set_num_threads(threads);
      KvCache a(1, form), b(1, form), alone(1, form);
      auto pass_of = [&](SequenceBounds bounds, std::vector<KvCache*> caches) {
        Pass pass;
        pass.bounds = std::move(bounds);
        pass.caches = std::move(caches);
        return pass;
      };
      auto run = [&](int64_t begin, int64_t end, const Pass& pass) { return attend(x.q.slice(0, begin, end), x.k.slice(0, begin, end), x.v.slice(0, begin, end), {}, pass); };
      const at::Tensor prompts = run(0, 1098, pass_of({0, 599, 1098}, {&a, &b})), step = run(1098, 1100, pass_of({0, 1, 2}, {&a, &b}));
      run(599, 1098, pass_of({0, 499}, {&alone}));
      EXPECT_TRUE(run(1099, 1100, pass_of({0, 1}, {&alone})).equal(step.slice(0, 1))) << threads;
      const at::Tensor all = at::cat({prompts, step}, 0);
      if (threads == 1) first = all;
      EXPECT_TRUE(all.equal(first)) << threads;
    }
  }
  set_num_threads(before);
}

TEST(KvCache, PassesThatNothingContinuesGetCachesWhereTheFormRounds) {
  for (KvForm form : kForms) {
    const Inputs x(40, 4, 2, 16, 16);
    Pass pass;
    pass.bounds = {0, 15, 40};
    const std::vector<KvCache> caches = caches_for(pass, 1, form);
    EXPECT_EQ(caches.size(), form == KvForm::automatic ? 0u : 2u);
    const at::Tensor y = attend(x.q, x.k, x.v, {}, pass);
    Pass plain;
    plain.bounds = pass.bounds;
    EXPECT_TRUE(y.equal(attend(x.q, rounded(x.k, form), rounded(x.v, form), {}, plain)));
  }
}

}  // namespace
}  // namespace statera
