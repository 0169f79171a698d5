// AdamW, clipping's norm and the schedules against numbers worked out by torch's and transformers' formulas.
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "train/adamw.h"
#include "train/schedule.h"

namespace statera {
namespace {

Parameter parameter(std::vector<float> values) { return {"w", Part::language, true, at::tensor(values, at::kFloat).requires_grad_(true)}; }

TEST(AdamW, FirstStepMovesByTheRateAgainstTheSign) {
  const std::vector<Parameter> p{parameter({1, -2, 3})};
  AdamW adamw(p, {});
  adamw.step({at::tensor(std::vector<float>{0.5f, -4, 0}, at::kFloat)}, 1, {0.1}, {0});
  const float* w = p[0].leaf.const_data_ptr<float>();
  EXPECT_NEAR(w[0], 0.9f, 1e-6);
  EXPECT_NEAR(w[1], -1.9f, 1e-6);
  EXPECT_EQ(w[2], 3.0f);
}

TEST(AdamW, DecayIsDecoupledFromTheGradient) {
  const std::vector<Parameter> p{parameter({2})};
  AdamW adamw(p, {});
  adamw.step({at::tensor(std::vector<float>{0}, at::kFloat)}, 1, {0.1}, {0.5});
  EXPECT_NEAR(p[0].leaf.const_data_ptr<float>()[0], 2 * (1 - 0.05f), 1e-6);
}

TEST(AdamW, ThreeStepsFollowTheFormulas) {
  const std::vector<Parameter> p{parameter({0.3f})};
  AdamW adamw(p, {0.9, 0.99, 1e-8});
  double w = 0.3f, m = 0, v = 0;
  for (int t = 1; t <= 3; ++t) {
    const double g = 0.2 * t - 0.3;
    adamw.step({at::tensor(std::vector<float>{static_cast<float>(g)}, at::kFloat)}, 1, {0.01}, {0.1});
    m += 0.1 * (g - m);
    v = 0.99 * v + 0.01 * g * g;
    w = w * (1 - 0.01 * 0.1) - 0.01 / (1 - std::pow(0.9, t)) * m / (std::sqrt(v) / std::sqrt(1 - std::pow(0.99, t)) + 1e-8);
    EXPECT_NEAR(p[0].leaf.const_data_ptr<float>()[0], w, 1e-6) << t;
  }
}

TEST(AdamW, AMissingGradientLeavesWeightAndStatesAlone) {
  const std::vector<Parameter> p{parameter({1}), parameter({1})};
  AdamW adamw(p, {});
  adamw.step({at::Tensor(), at::tensor(std::vector<float>{1}, at::kFloat)}, 1, {0.1, 0.1}, {0.5, 0.5});
  EXPECT_EQ(p[0].leaf.const_data_ptr<float>()[0], 1.0f);
  EXPECT_LT(p[1].leaf.const_data_ptr<float>()[0], 1.0f);
}

TEST(GlobalNorm, IsTheSameForAnyNumberOfThreads) {
  std::vector<at::Tensor> grads;
  for (int i = 1; i < 9; ++i) {
    at::Tensor g = at::empty({1000 * i}, at::kFloat);
    for (int64_t j = 0; j < g.numel(); ++j) g.mutable_data_ptr<float>()[j] = static_cast<float>(std::sin(i * 37.0 + static_cast<double>(j)));
    grads.push_back(g);
  }
  const int before = num_threads();
  set_num_threads(1);
  const double one = global_norm(grads);
  set_num_threads(3);
  EXPECT_EQ(global_norm(grads), one);
  set_num_threads(before);
  EXPECT_NEAR(global_norm({at::tensor(std::vector<float>{3}, at::kFloat), at::Tensor(), at::tensor(std::vector<float>{4}, at::kFloat)}), 5, 1e-12);
}

TEST(Schedule, WarmsUpFromZeroAndEndsAtZero) {
  const Schedule cosine{"cosine", 4, 20}, linear{"linear", 4, 20}, constant{"constant", 4, 20};
  for (const Schedule& s : {cosine, linear, constant}) {
    EXPECT_EQ(s.factor(0), 0);
    EXPECT_EQ(s.factor(1), 0.25);
    EXPECT_EQ(s.factor(4), 1);
  }
  EXPECT_NEAR(cosine.factor(12), 0.5, 1e-12);
  EXPECT_NEAR(cosine.factor(20), 0, 1e-12);
  EXPECT_NEAR(linear.factor(8), 0.75, 1e-12);
  EXPECT_EQ(linear.factor(25), 0);
  EXPECT_EQ(constant.factor(19), 1);
}

TEST(Schedule, AnUnknownNameIsRefusedWithTheNearest) {
  try {
    check_schedule("cosin");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("did you mean \"cosine\""), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace statera
