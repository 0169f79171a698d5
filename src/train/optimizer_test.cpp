// AdamW, clipping's norm and the schedules against numbers worked out by torch's and transformers' formulas.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
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

// A matrix that is large enough for coded moments, with gradients that change over the steps.
struct Coded {
  explicit Coded(StateBits bits, const char* name = "w") : parameters{{name, Part::language, true, at::zeros({90, 50}).requires_grad_(true)}}, adamw(parameters, {.states = bits}) {}
  static at::Tensor gradient(int64_t step) { return at::sin(at::arange(4500, at::kFloat) * (0.7 + 0.01 * static_cast<double>(step))).reshape({90, 50}) + 0.5; }
  void run(int64_t from, int64_t to) {
    for (int64_t step = from; step < to; ++step) adamw.step({gradient(step)}, 1, {0.01}, {0});
  }
  at::Tensor weight() const { return parameters[0].leaf.detach(); }
  std::vector<Parameter> parameters;
  AdamW adamw;
};

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).norm().item<double>() / b.norm().item<double>(); }

TEST(AdamWStates, MomentsInFewerBitsTakeNearlyTheSameSteps) {
  Coded exact(StateBits::fp32), half(StateBits::bf16), eighth(StateBits::eight);
  for (Coded* c : {&exact, &half, &eighth}) c->run(0, 30);
  EXPECT_EQ(half.adamw.states()[0].v.scalar_type(), at::kBFloat16);
  EXPECT_EQ(eighth.adamw.states()[0].v.scalar_type(), at::kByte);
  EXPECT_EQ(eighth.adamw.states()[0].m_scale.numel(), 18);  // 4500 elements in blocks of 256
  EXPECT_FALSE(half.adamw.states()[0].m_scale.defined());
  EXPECT_LT(distance(half.weight(), exact.weight()), 0.005);
  EXPECT_LT(distance(eighth.weight(), exact.weight()), 0.05);
  EXPECT_GT(distance(eighth.weight(), exact.weight()), 0);
}

TEST(AdamWStates, SmallWeightsKeepFp32Moments) {
  const std::vector<Parameter> p{parameter({1, 2})};
  const AdamW adamw(p, {.states = StateBits::eight});
  EXPECT_EQ(adamw.states()[0].m.scalar_type(), at::kFloat);
}

TEST(AdamWStates, GoOnBitForBitFromWhatWasRestoredWhateverTheThreads) {
  const int before = num_threads();
  for (const auto bits : {StateBits::bf16, StateBits::eight}) {
    set_num_threads(3);
    Coded whole(bits), first(bits), second(bits), other(bits, "v");
    whole.run(0, 9);
    other.run(0, 9);
    set_num_threads(1);
    first.run(0, 4);
    second.weight().copy_(first.weight());
    std::vector<AdamW::State> states = first.adamw.states();
    for (AdamW::State& s : states) {
      s.m = s.m.clone();
      s.v = s.v.clone();
    }
    second.adamw.restore(states, 4);
    second.run(4, 9);
    EXPECT_TRUE(at::equal(second.weight(), whole.weight()));
    EXPECT_FALSE(at::equal(other.weight(), whole.weight()));  // another name, other chances
  }
  set_num_threads(before);
}

double mean_of_second(const AdamW::State& s) {
  if (!s.v_scale.defined()) return s.v.to(at::kFloat).mean().item<double>();
  double sum = 0;
  for (int64_t at = 0; at < s.v.numel(); at += kStateBlock) {
    const int64_t n = std::min(kStateBlock, s.v.numel() - at);
    float v[kStateBlock];
    decode_second(s.v.const_data_ptr<uint8_t>() + at, s.v_scale.const_data_ptr<float>()[at / kStateBlock], n, v);
    for (int64_t i = 0; i < n; ++i) sum += v[i];
  }
  return sum / static_cast<double>(s.v.numel());
}

// Rounded to the nearest bf16, an average of decay 0.999 would stay where it is. Roots are right in the mean, so that squares gain a little.
TEST(AdamWStates, SecondMomentsFollowGradientsThatEnd) {
  for (const auto bits : {StateBits::fp32, StateBits::bf16, StateBits::eight}) {
    Coded c(bits);
    c.run(0, 1);
    const double first = mean_of_second(c.adamw.states()[0]);
    for (int i = 0; i < 700; ++i) c.adamw.step({at::zeros({90, 50})}, 1, {0}, {0});
    EXPECT_NEAR(mean_of_second(c.adamw.states()[0]) / first, std::pow(0.999, 700), bits == StateBits::eight ? 0.03 : 0.01);
  }
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
