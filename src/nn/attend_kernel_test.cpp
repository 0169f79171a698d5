// Attention through the kernels against the path of graphs, which ATen computes; the same for any number of threads.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu.h"
#include "nn/attend.h"
#include "nn/attend_kernel.h"
#include "nn/compute.h"
#include "nn/kv_cache.h"

namespace statera {
namespace {

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

struct Inputs {
  at::Tensor q, k, v;
};
// As slices of one product, so that heads and rows lie apart.
Inputs inputs(int64_t T, int64_t N, int64_t K, int64_t d, int64_t dv) {
  at::Tensor all = at::randn({T, N * d + K * d + K * dv});
  return {all.slice(1, 0, N * d).unflatten(1, {N, d}), all.slice(1, N * d, (N + K) * d).unflatten(1, {K, d}), all.slice(1, (N + K) * d).unflatten(1, {K, dv})};
}

at::Tensor by_graph(const Inputs& x, const AttendSite& site, const Pass& pass, const SequenceBounds* bounds = nullptr) {
  at::AutoGradMode graphs(true);
  const at::Tensor q = x.q.detach().requires_grad_(true);
  EXPECT_FALSE(attends_in_kernels(q, x.k, x.v));
  return attend(q, x.k, x.v, site, pass, bounds).detach();
}

TEST(AttendKernel, EqualsThePathOfGraphsForRaggedBatches) {
  for (const auto& [N, K, d, dv] : {std::array<int64_t, 4>{12, 2, 128, 128}, {16, 16, 80, 80}, {14, 2, 64, 64}, {4, 4, 72, 72}, {2, 1, 256, 256}, {4, 2, 10, 6}}) {
    for (bool causal : {true, false}) {
      for (int64_t window : {0, 40}) {
        if (window && !causal) continue;
        const Inputs x = inputs(451, N, K, d, dv);
        Pass pass;
        pass.bounds = {0, 200, 201, 204, 204, 250, 451};
        AttendSite site;
        site.causal = causal;
        site.window = window;
        ASSERT_TRUE(attends_in_kernels(x.q, x.k, x.v));
        EXPECT_LT(difference(attend(x.q, x.k, x.v, site, pass), by_graph(x, site, pass)), 5e-6) << N << " " << d << " " << causal << " " << window;
      }
    }
  }
}

TEST(AttendKernel, GivenBoundsReplaceThoseOfThePassAndTheScaleIsTheSites) {
  const Inputs x = inputs(60, 4, 4, 40, 40);
  Pass pass;
  pass.bounds = {0, 60};
  AttendSite site;
  site.causal = false;
  site.scale = 0.3;
  const SequenceBounds windows{0, 16, 32, 60};
  EXPECT_LT(difference(attend(x.q, x.k, x.v, site, pass, &windows), by_graph(x, site, pass, &windows)), 5e-6);
}

TEST(AttendKernel, StepsThroughALongCacheEqualOnePass) {
  for (int64_t window : {0, 100}) {
    const Inputs x = inputs(600, 6, 2, 32, 32);
    AttendSite site;
    site.window = window;
    Pass whole;
    whole.bounds = {0, 600};
    const at::Tensor expected = by_graph(x, site, whole);
    KvCache cache(1);
    for (int64_t begin = 0, rows = 580; begin < 600; begin += rows, rows = begin < 590 ? 1 : 5) {
      const int64_t end = begin + rows;
      Pass pass;
      pass.bounds = {0, rows};
      pass.caches = {&cache};
      const at::Tensor y = attend(x.q.slice(0, begin, end), x.k.slice(0, begin, end), x.v.slice(0, begin, end), site, pass);
      EXPECT_LT(difference(y, expected.slice(0, begin, end)), 5e-6) << begin;
    }
    EXPECT_EQ(cache.length(), 600);
  }
}

TEST(AttendKernel, TheNumberOfThreadsChangesNoBit) {
  const Inputs x = inputs(1500, 4, 2, 48, 48);
  AttendSite site;
  Pass pass;
  pass.bounds = {0, 700, 1500};
  const int before = num_threads();
  at::Tensor first[2];
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    KvCache a(1), b(1);
    pass.caches = {&a, &b};
    pass.bounds = {0, 699, 1498};
    auto rows = [](const at::Tensor& t) { return t.slice(0, 0, 1498); };
    const at::Tensor many = attend(rows(x.q), rows(x.k), rows(x.v), site, pass);
    pass.bounds = {0, 1, 2};
    const at::Tensor few = attend(x.q.slice(0, 1498), x.k.slice(0, 1498), x.v.slice(0, 1498), site, pass);
    if (threads == 1) {
      first[0] = many;
      first[1] = few;
    }
    EXPECT_TRUE(many.equal(first[0])) << threads;
    EXPECT_TRUE(few.equal(first[1])) << threads;
  }
  set_num_threads(before);
}

TEST(AttendKernel, SixteenBitHeadsAndVeryWideOnesStayWithAten) {
  const Inputs x = inputs(5, 2, 2, 8, 8), wide = inputs(5, 1, 1, 264, 8);
  EXPECT_FALSE(attends_in_kernels(x.q.to(at::kBFloat16), x.k.to(at::kBFloat16), x.v.to(at::kBFloat16)));
  EXPECT_FALSE(attends_in_kernels(wide.q, wide.k, wide.v));
}

TEST(AttendKernel, InIntegersIsNearAndDependsOnNoThread) {
  const Inputs x = inputs(451, 4, 2, 80, 72);
  Pass pass;
  pass.bounds = {0, 200, 201, 204, 204, 250, 451};  // a few rows of one sequence go the exact way
  AttendSite site;
  site.causal = false;
  const at::Tensor exact = attend(x.q, x.k, x.v, site, pass);
  site.in_integers = true;
  const int before = num_threads();
  at::Tensor first;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    const at::Tensor y = attend(x.q, x.k, x.v, site, pass);
    if (threads == 1) first = y;
    EXPECT_TRUE(y.equal(first)) << threads;
  }
  set_num_threads(before);
  const double off = (first - exact).abs().mean().item<double>();
  EXPECT_GT(off, 1e-5);
  EXPECT_LT(off, 4e-3);
  site.causal = true;
  EXPECT_THROW(attend(x.q, x.k, x.v, site, pass), Bug);
}

// A vision tower of one layer.
Params tower(std::optional<ActQuant> act) {
  Params p;
  p.linears["visual.qkv"] = std::make_shared<LinearSite>();
  p.linears["visual.qkv"]->role = Role::vision;
  p.linears["visual.qkv"]->act = act;
  p.picture_attentions.push_back(std::make_shared<AttendSite>());
  return p;
}

TEST(AttendKernel, PatchesAttendInIntegersWhereTheTowerDoesAndIsFasterOrWhereAsked) {
  auto in_integers = [](Params p, const char* how, at::ScalarType dtype = at::kFloat) {
    set_vision_attention(p, parse_vision_attention(how), dtype);
    return p.picture_attentions.at(0)->in_integers;
  };
  EXPECT_FALSE(in_integers(tower(ActQuant{8}), "exact"));
  EXPECT_TRUE(in_integers(tower({}), "int8"));
  EXPECT_FALSE(in_integers(tower({}), "auto"));
  EXPECT_FALSE(in_integers(tower(ActQuant{8}), "auto", at::kBFloat16));
  EXPECT_EQ(in_integers(tower(ActQuant{8}), "auto"), picture_attention_pays());
  kernels::set_isa(kernels::Isa::scalar);
  EXPECT_FALSE(in_integers(tower(ActQuant{8}), "auto"));
  kernels::set_isa(std::nullopt);
  Params text;
  EXPECT_THROW(set_vision_attention(text, Compute::int8, at::kFloat), Error);
  set_vision_attention(text, Compute::automatic, at::kFloat);
  Params p = tower({});
  EXPECT_THROW(set_vision_attention(p, Compute::int8, at::kBFloat16), Error);
  EXPECT_THROW(parse_vision_attention("int4"), Error);
}

}  // namespace
}  // namespace statera
