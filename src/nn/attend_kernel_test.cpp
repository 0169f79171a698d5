// Attention through the kernels against the path of graphs, which ATen computes; the same for any number of threads.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "base/threads.h"
#include "nn/attend.h"
#include "nn/attend_kernel.h"
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

}  // namespace
}  // namespace statera
