// The measured errors against plain double arithmetic, by kind of token and with scales folded in.
#include "quant/evidence.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "quant/search/test_tensors.h"

namespace statera {
namespace {

constexpr int64_t kT = 90, kK = 64, kN = 300;

Pass with_kinds(int64_t vision) {
  Pass pass;
  pass.kinds = at::zeros({kT}, at::kChar);
  pass.kinds.slice(0, 0, vision).fill_(static_cast<int64_t>(kVision));
  pass.kinds.slice(0, kT - 10, kT).fill_(static_cast<int64_t>(kAnswer));
  return pass;
}

double squares(const at::Tensor& t) { return t.to(at::kDouble).square().sum().item<double>(); }

void expect_near(double a, double b) { EXPECT_NEAR(a, b, 1e-4 * std::abs(b)); }

TEST(Evidence, ErrorsByKindAreThoseOfPlainArithmetic) {
  LinearSite site;
  const at::Tensor W = weight_matrix(kN, kK, 1), x = activations(kT, kK, 2), worse = weight_matrix(kN, kK, 1) * 0.9;
  const QSpec spec{4, 32, false};
  Evidence evidence(kT - 30, 30, 0);
  evidence.add(site, x, with_kinds(30));
  const auto got = evidence.measure(site, W, rtn(worse, spec), {}, {}, {});
  ASSERT_TRUE(got);
  const at::Tensor e = at::matmul(x, (rtn(worse, spec).dequantize() - W).t()), r = at::matmul(x, (rtn(W, spec).dequantize() - W).t()), y = at::matmul(x, W.t());
  expect_near(got->vision.error, squares(e.slice(0, 0, 30)));
  expect_near(got->vision.rtn, squares(r.slice(0, 0, 30)));
  expect_near(got->vision.output, squares(y.slice(0, 0, 30)));
  expect_near(got->text.error, squares(e.slice(0, 30)));
  expect_near(got->text.rtn, squares(r.slice(0, 30)));
  EXPECT_EQ(got->vision.rows, 30);
  EXPECT_EQ(got->text.rows, kT - 30);  // answers too
  expect_near(got->total().error, squares(e));
  EXPECT_GT(got->text.error, got->text.rtn);
}

TEST(Evidence, FoldedScalesAreTakenBack) {
  LinearSite site;
  const at::Tensor W = weight_matrix(kN, kK, 1), x = activations(kT, kK, 2);
  const at::Tensor in = at::linspace(0.5, 3, kK), out = at::linspace(0.25, 2, kN);
  const QSpec spec{4, -1, true};
  for (const bool rounded : {false, true}) {
    const std::optional<ActQuant> act = rounded ? std::optional(ActQuant{8}) : std::nullopt;
    Evidence evidence(kT, 0, 0);
    evidence.add(site, x, Pass{});
    const QTensor q = rtn(W * in / out.unsqueeze(1), spec);
    const auto got = evidence.measure(site, W, q, in, out, act);
    const at::Tensor xq = act ? fake_quantize(x / in, *act) : x / in;
    expect_near(got->text.error, squares(at::matmul(xq, q.dequantize().t()) * out - at::matmul(x, W.t())));
    EXPECT_EQ(got->vision.rows, 0);
  }
}

TEST(Evidence, LayersOfOneInputShareItAndOthersDoNot) {
  LinearSite a, b, c;
  Evidence evidence(2 * kT, 0, 0);
  for (uint64_t s : {1, 2}) {
    const at::Tensor x = activations(kT, kK, s), other = activations(kT, kK, s + 10);
    evidence.add(a, x, Pass{});
    evidence.add(b, x, Pass{});
    evidence.add(c, other, Pass{});
  }
  const at::Tensor W = weight_matrix(kN, kK, 1);
  const QTensor q = rtn(W, {3, 32, true});
  const auto of_a = evidence.measure(a, W, q, {}, {}, {}), of_b = evidence.measure(b, W, q, {}, {}, {}), of_c = evidence.measure(c, W, q, {}, {}, {});
  EXPECT_EQ(of_a->text.seen, 2 * kT);
  EXPECT_EQ(of_b->text.seen, 2 * kT);
  EXPECT_EQ(of_a->text.error, of_b->text.error);
  EXPECT_NE(of_a->text.error, of_c->text.error);
  EXPECT_EQ(of_a->text.error, of_a->text.rtn);
}

TEST(Evidence, ASampleOfRowsStandsForAll) {
  LinearSite site, whole;
  const at::Tensor W = weight_matrix(kN, kK, 1);
  const QTensor q = rtn(W, {4, 32, true});
  Evidence evidence(40 * (kT - 30), 40 * 30, 0), all(1, 1, 0);
  for (uint64_t s = 0; s < 40; ++s) {
    evidence.add(site, activations(kT, kK, s), with_kinds(30));
    all.add(whole, activations(kT, kK, s), with_kinds(30));
  }
  const auto some = evidence.measure(site, W, q, {}, {}, {}), every = all.measure(whole, W, q, {}, {}, {});
  EXPECT_NEAR(some->text.rows, Evidence::kRowsPerKind, 60);
  EXPECT_NEAR(some->vision.rows, Evidence::kRowsPerKind, 60);
  EXPECT_EQ(some->total().seen, 40 * kT);
  EXPECT_NEAR(some->total().error / every->total().error, 1, 0.15);
  EXPECT_NEAR(some->total().error / some->total().output, every->total().error / every->total().output, 0.1 * every->total().error / every->total().output);
}

TEST(Evidence, OutlierChannelsAreNamed) {
  LinearSite site;
  at::Tensor x = at::full({8, kK}, 0.5);
  x[3][17] = -40;
  x[5][2] = 10;
  Evidence evidence(8, 0, 0);
  evidence.add(site, x, Pass{});
  const at::Tensor W = weight_matrix(kN, kK, 1);
  const InputRange range = evidence.measure(site, W, rtn(W, {4, 32, true}), {}, {}, {})->input;
  EXPECT_EQ(range.outliers, 2);
  EXPECT_EQ(range.median, 0.5);
  ASSERT_EQ(range.top.size(), 5u);
  EXPECT_EQ(range.top[0], (std::pair<int64_t, double>(17, 40)));
  EXPECT_EQ(range.top[1], (std::pair<int64_t, double>(2, 10)));
}

TEST(Evidence, NumberOfThreadsChangesNoBit) {
  const int before = num_threads();
  const at::Tensor W = weight_matrix(kN, kK, 1), x = activations(kT, kK, 2);
  std::vector<double> seen;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    LinearSite site;
    Evidence evidence(kT, 0, 0);
    evidence.add(site, x, Pass{});
    seen.push_back(evidence.measure(site, W, rtn(W, {4, 32, true}), {}, {}, {})->text.error);
  }
  set_num_threads(before);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
}

}  // namespace
}  // namespace statera
