// Router losses of a mixture of experts against transformers' load_balancing_loss_func and a squared logsumexp (tools/golden/train.py):
// gradients, ten steps, all rows at once; the same numbers from lanes and with activation checkpointing.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "support/training.h"

namespace statera {
namespace {

using namespace training;

RouterLoss coefficients(const Golden& golden) { return {golden.number("aux"), golden.number("z")}; }

double total(const Trainer::Step& step, const RouterLoss& c) { return step.loss + c.aux * step.routers.aux + c.z * step.routers.z; }

TEST(Experts, FirstGradientWithRouterLossesEqualsTransformers) {
  const Golden golden("qwen3_moe");
  const RouterLoss c = coefficients(golden);
  Started run = start("qwen3_moe", golden, {.routers = c});
  Trainer::Step step;
  const auto grads = run.trainer->gradients(run.alone(), step);
  size_t seen = 0, wanted = 0;
  for (size_t p = 0; p < grads.size(); ++p) {
    const std::string& name = run.trainer->parameters()[p].name;
    const TensorInfo* info = golden.file.find("grad." + name);
    if (!info) {
      EXPECT_NE(name.find(".experts."), name.npos) << name;  // of some experts only
      continue;
    }
    ASSERT_TRUE(grads[p].defined()) << name;
    EXPECT_LT(error_of(grads[p], golden.file.tensor(*info)), kTolerance) << name;
    ++seen;
  }
  for (const TensorInfo& t : golden.file.tensors()) wanted += t.name.starts_with("grad.");
  EXPECT_EQ(seen, wanted);
  EXPECT_NEAR(total(step, c), golden.floats("losses")[0], kTolerance);
  EXPECT_NEAR(step.routers.aux, golden.floats("routers")[0], kTolerance);
  EXPECT_NEAR(step.routers.z, golden.floats("routers")[1], kTolerance);
}

// differs: an expert that no token of a step chose stays as it is. The reference holds experts in one tensor, so that such an expert goes on
// by its momentum; from then on the runs are a little apart.
TEST(Experts, TenStepsWithRouterLossesFollowTransformers) {
  const Golden golden("qwen3_moe");
  const RouterLoss c = coefficients(golden);
  const auto losses = golden.floats("losses"), norms = golden.floats("norms"), routers = golden.floats("routers");
  Started run = start("qwen3_moe", golden, {.routers = c});
  const auto batches = run.alone();
  double tolerance = kTolerance;
  size_t together = 0;  // steps before an expert was idle
  for (size_t i = 0; i < losses.size(); ++i) {
    Trainer::Step same;
    const auto grads = run.trainer->gradients(batches, same);
    const Trainer::Step step = run.trainer->step(batches);
    EXPECT_NEAR(total(step, c), losses[i], tolerance * losses[i]) << "step " << i;
    EXPECT_NEAR(step.grad_norm, norms[i], 10 * tolerance * norms[i]) << "step " << i;
    EXPECT_NEAR(step.routers.aux, routers[2 * i], tolerance * routers[2 * i]) << "step " << i;
    EXPECT_NEAR(step.routers.z, routers[2 * i + 1], tolerance * routers[2 * i + 1]) << "step " << i;
    if (std::any_of(grads.begin(), grads.end(), [](const at::Tensor& g) { return !g.defined(); })) tolerance = 10 * kTolerance;
    together += tolerance == kTolerance;
  }
  EXPECT_GE(together, 5u);
}

TEST(Experts, APassOfSeveralSamplesIsBalancedAsOneOverAllItsRows) {
  const Golden golden("qwen3_moe");
  const RouterLoss c = coefficients(golden);
  const auto wanted = golden.floats("packed.routers");
  for (const bool checkpointing : {false, true}) {
    Started with = start("qwen3_moe", golden, {.checkpointing = checkpointing, .routers = c}), without = start("qwen3_moe", golden);
    Trainer::Step step, plain;
    const auto all = with.trainer->gradients(with.packed(), step), loss = without.trainer->gradients(without.packed(), plain);
    EXPECT_NEAR(step.routers.aux, wanted[0], kTolerance);
    EXPECT_NEAR(step.routers.z, wanted[1], kTolerance);
    EXPECT_EQ(plain.routers.aux, 0);
    size_t seen = 0;
    for (size_t p = 0; p < all.size(); ++p) {
      const std::string& name = with.trainer->parameters()[p].name;
      const TensorInfo* info = golden.file.find("packed.grad." + name);
      if (!info) continue;
      EXPECT_LT(error_of(all[p] - loss[p], golden.file.tensor(*info)), 10 * kTolerance) << name << " checkpointing " << checkpointing;
      ++seen;
    }
    EXPECT_EQ(seen, 6u);  // two routers, four norms
  }
}

TEST(Experts, LanesWithASampleEachAndCheckpointsGiveTheGradientsOfSamplesAlone) {
  const Golden golden("qwen3_moe");
  const RouterLoss c = coefficients(golden);
  Started alone = start("qwen3_moe", golden, {.routers = c});
  Trainer::Step step;
  const auto wanted = alone.trainer->gradients(alone.alone(), step);
  for (const bool checkpointing : {false, true}) {
    Started run = start("qwen3_moe", golden, {.lanes = 3, .checkpointing = checkpointing, .routers = c});
    Trainer::Step other;
    const auto grads = run.trainer->gradients(run.packed(), other);
    EXPECT_NEAR(other.routers.aux, step.routers.aux, 1e-6);
    EXPECT_NEAR(other.routers.z, step.routers.z, 1e-6);
    for (size_t p = 0; p < grads.size(); ++p) {
      ASSERT_EQ(grads[p].defined(), wanted[p].defined());
      if (!grads[p].defined()) continue;
      EXPECT_LT(error_of(grads[p], wanted[p]), kTolerance) << run.trainer->parameters()[p].name << " checkpointing " << checkpointing;
    }
  }
}

TEST(Experts, TheLoadBalancingLossEvensOutTheExperts) {
  const Golden golden("qwen3_moe");
  Started run = start("qwen3_moe", golden, {.routers = {10, 0}, .rate = 1e-2});
  const auto batches = run.packed();
  const double first = run.trainer->step(batches).routers.aux;
  double last = first;
  for (int i = 0; i < 9; ++i) last = run.trainer->step(batches).routers.aux;
  EXPECT_GT(first, 2.02);  // 2: k experts of each token, all used alike
  EXPECT_LT(last - 2, 0.5 * (first - 2));
}

TEST(Experts, RouterLossesNeedARouter) {
  const Golden golden("qwen3");
  EXPECT_THROW(start("qwen3", golden, {.routers = {0.01, 0}}), Error);
}

}  // namespace
}  // namespace statera
