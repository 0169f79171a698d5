// rtn_rows against rtn() of nn (the specification), against worked numbers, and over threads.
#include "quant/methods/rtn/algo.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"
#include "quant/recipe.h"

namespace statera {
namespace {

// Normal weights of very different row sizes, so that scales cross many exponents.
at::Tensor random_matrix(int64_t N, int64_t K, uint64_t seed, at::ScalarType dtype) {
  Rng rng(seed);
  at::Tensor w = at::zeros({N, K}, at::kFloat);
  float* p = w.mutable_data_ptr<float>();
  for (int64_t i = 0; i < N * K; ++i) p[i] = static_cast<float>(rng.normal_at(static_cast<uint64_t>(i)) * std::exp2(i / K % 12 - 9.0));
  return w.to(dtype);
}

void expect_same(const QTensor& a, const QTensor& b) {
  EXPECT_TRUE(at::equal(a.q, b.q));
  EXPECT_TRUE(at::equal(a.scale, b.scale));
  EXPECT_EQ(a.scale.scalar_type(), b.scale.scalar_type());
  EXPECT_EQ(a.zero.defined(), b.zero.defined());
  if (a.zero.defined() && b.zero.defined()) { EXPECT_TRUE(at::equal(a.zero, b.zero)); }
}

TEST(Rtn, EqualsTheSpecificationToTheBitForAllBitsGroupsAndTypes) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (int bits = 2; bits <= 8; ++bits) {
      for (int64_t group : {int64_t{-1}, int64_t{8}, int64_t{17}, int64_t{32}, int64_t{96}, int64_t{128}}) {
        for (bool symmetric : {true, false}) {
          SCOPED_TRACE(std::string(c10::toString(dtype)) + " bits " + std::to_string(bits) + " group " + std::to_string(group) +
                       (symmetric ? " sym" : " asym"));
          const QSpec spec{bits, group, symmetric};
          const at::Tensor w = random_matrix(37, 384, static_cast<uint64_t>(bits * 1000 + group), dtype);
          const RtnResult fast = rtn_rows(w, spec);
          EXPECT_EQ(fast.nonfinite, 0);
          expect_same(fast.q, rtn(w, spec));
        }
      }
    }
  }
}

QSpec own_range(int bits, int64_t group = -1) { return {.bits = bits, .group = group, .symmetric = false, .own_range = true}; }

TEST(RtnOwnRange, EqualsTheSpecificationToTheBitForGroupsOfOneSignToo) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (int bits = 2; bits <= 8; ++bits) {
      for (int64_t group : {int64_t{-1}, int64_t{17}, int64_t{32}, int64_t{96}}) {
        SCOPED_TRACE(std::string(c10::toString(dtype)) + " bits " + std::to_string(bits) + " group " + std::to_string(group));
        at::Tensor w = random_matrix(37, 384, static_cast<uint64_t>(bits * 1000 + group), dtype);
        w[3].zero_();
        w.slice(0, 4, 8).abs_().add_(0.5);
        w.slice(0, 8, 12).abs_().neg_().sub_(0.01);
        w[12].fill_(0.5);
        const RtnResult fast = rtn_rows(w, own_range(bits, group));
        EXPECT_EQ(fast.nonfinite, 0);
        expect_same(fast.q, rtn(w, own_range(bits, group)));
      }
    }
  }
}

// Checks 1 and 3 of mbq.md: half to even before the zero point is added; groups of one sign saturate; zeros stay zeros.
TEST(RtnOwnRange, GivesTheWorkedNumbersOfMbqsCode) {
  const at::Tensor both = at::tensor({-0.75f, -0.625f, -0.3f, -0.1f, 0.f, 0.125f, 0.375f, 1.0f}).reshape({1, 8});
  const QTensor q = rtn_rows(both, own_range(3)).q;
  EXPECT_EQ(q.scale.item<float>(), 0.25f);
  EXPECT_EQ(q.zero.item<int>() - q.spec.qmin(), 3);
  EXPECT_TRUE(at::equal(q.q[0] - q.spec.qmin(), at::tensor({0, 1, 2, 3, 3, 3, 5, 7}, at::kChar)));
  EXPECT_TRUE(at::equal(q.dequantize()[0], at::tensor({-0.75f, -0.5f, -0.25f, 0.f, 0.f, 0.f, 0.5f, 1.0f})));
  const at::Tensor above = at::tensor({1.f, 1.25f, 1.5f, 2.75f}).reshape({1, 4});
  EXPECT_TRUE(at::equal(rtn_rows(above, own_range(3)).q.dequantize()[0], at::tensor({1.f, 1.25f, 1.5f, 1.75f})));
  EXPECT_TRUE(at::equal(rtn_rows(-above, own_range(3)).q.dequantize()[0], at::tensor({-1.f, -1.25f, -1.5f, -1.75f})));
  const at::Tensor constant = rtn_rows(at::zeros({1, 8}) + 0.5, own_range(3)).q.dequantize();
  EXPECT_NEAR(constant.max().item<double>(), 1e-5, 1e-11);
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const RtnResult zero = rtn_rows(at::zeros({2, 8}, dtype), own_range(3));
    EXPECT_EQ(zero.nonfinite, 0);
    EXPECT_EQ(zero.q.dequantize().abs().max().item<double>(), 0);
  }
}

TEST(RtnOwnRange, GroupsOfBothSignsAreOffByHalfAStepAtMostAndRoundingAgainChangesNothing) {
  for (int bits : {2, 3, 4, 8}) {
    const at::Tensor w = random_matrix(200, 64, static_cast<uint64_t>(bits), at::kFloat);
    const QTensor q = rtn_rows(w, own_range(bits, 32)).q;
    const at::Tensor once = q.dequantize(), step = q.scale.unsqueeze(2).expand({200, 2, 32}).reshape({200, 64});
    EXPECT_LE(((once - w).abs() / step).max().item<double>(), 0.5 + 1e-4);
    const at::Tensor twice = rtn_rows(once, own_range(bits, 32)).q.dequantize();
    EXPECT_LE(((twice - once).abs() / step).max().item<double>(), 1e-4);
  }
}

TEST(RtnOwnRange, SymmetricWeightsKnowNothingOfIt) {
  const at::Tensor w = random_matrix(8, 64, 3, at::kFloat).abs();
  expect_same(rtn_rows(w, {.bits = 4, .group = 32, .own_range = true}).q, rtn_rows(w, {4, 32, true}).q);
}

TEST(RtnOwnRange, NanAndInfinityAreCounted) {
  for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
    for (int64_t column : {int64_t{0}, int64_t{15}, int64_t{16}, int64_t{38}}) {
      at::Tensor w = random_matrix(4, 39, 3, at::kFloat);
      w[2][column] = bad;
      EXPECT_EQ(rtn_rows(w, own_range(4)).nonfinite, 1) << column;
    }
  }
}

TEST(Rtn, WorkedMatrixOfTheFormatPage) {
  const at::Tensor w =
      at::tensor({-.8f, -.4f, 0.f, .7f, .1f, .2f, .3f, 1.5f, .75f, -.75f, .3f, -.3f, .05f, -.05f, 0.f, 0.f}).reshape({2, 8});
  const RtnResult sym = rtn_rows(w, {4, 4, true});
  EXPECT_TRUE(at::equal(sym.q.q, at::tensor({-8, -4, 0, 7, 0, 1, 2, 7, 7, -8, 3, -3, 7, -8, 0, 0}, at::kChar).reshape({2, 8})));
  const RtnResult asym = rtn_rows(w, {4, 4, false});
  EXPECT_TRUE(at::equal(asym.q.zero, at::tensor({0, -8, 0, 0}, at::kChar).reshape({2, 2})));
  EXPECT_TRUE(at::equal(asym.q.q, at::tensor({-8, -4, 0, 7, -7, -6, -5, 7, 7, -8, 3, -3, 7, -8, 0, 0}, at::kChar).reshape({2, 8})));
  EXPECT_TRUE(at::equal(rtn_rows(w, {4, -1, true}).q.q[0], at::tensor({-4, -2, 0, 4, 0, 1, 2, 7}, at::kChar)));
}

TEST(Rtn, AllZeroGroupsGetTheEpsilonOfTheirTypeAndZeroCodes) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const double epsilon = dtype == at::kFloat ? 0x1p-23 : dtype == at::kBFloat16 ? 0x1p-7 : 0x1p-10;
    for (bool symmetric : {true, false}) {
      const RtnResult r = rtn_rows(at::zeros({3, 64}, dtype), {4, 32, symmetric});
      EXPECT_EQ(r.nonfinite, 0);
      EXPECT_EQ(r.q.scale.to(at::kDouble).min().item<double>(), epsilon);
      EXPECT_EQ(r.q.scale.to(at::kDouble).max().item<double>(), epsilon);
      EXPECT_EQ(r.q.dequantize().abs().max().item<double>(), 0);
      if (!symmetric) { EXPECT_EQ(r.q.zero.to(at::kInt).abs().max().item<int>(), 0); }
    }
  }
}

TEST(Rtn, CountsGroupsWithNanOrInfinity) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
      for (int64_t column : {int64_t{0}, int64_t{15}, int64_t{16}, int64_t{38}}) {  // inside and outside of the lanes
        at::Tensor w = random_matrix(4, 39, 3, dtype);
        w[2][column] = bad;
        EXPECT_EQ(rtn_rows(w, {4, -1, true}).nonfinite, 1) << column;
      }
    }
  }
}

TEST(Rtn, RangeThatOverflowsHalfPrecisionIsNonfinite) {
  const at::Tensor w = at::tensor({65504.f, -65504.f}).reshape({1, 2}).to(at::kHalf);
  EXPECT_EQ(rtn_rows(w, {4, -1, false}).nonfinite, 1);
  EXPECT_EQ(rtn_rows(w, {4, -1, true}).nonfinite, 0);
}

TEST(Rtn, ErrorSumsMatchAMeasurementOfTheResult) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (bool symmetric : {true, false}) {
      const at::Tensor w = random_matrix(70, 200, 5, dtype);
      const RtnResult r = rtn_rows(w, {3, 40, symmetric});
      const RoundingError measured = rounding_error(w, r.q);
      EXPECT_GT(measured.error, 0);
      EXPECT_NEAR(r.error / measured.error, 1, 1e-5);
      EXPECT_NEAR(r.weight / measured.weight, 1, 1e-5);
    }
  }
}

TEST(Rtn, MoreBitsAndSmallerGroupsRoundBetter) {
  const at::Tensor w = random_matrix(32, 512, 9, at::kFloat);
  double before = 1e30;
  for (int bits = 2; bits <= 8; ++bits) {
    const double now = rtn_rows(w, {bits, 128, true}).error;
    EXPECT_LT(now, before);
    before = now;
  }
  EXPECT_LT(rtn_rows(w, {4, 32, true}).error, rtn_rows(w, {4, -1, true}).error);
}

TEST(Rtn, ThreadsDoNotChangeAnything) {
  const at::Tensor w = random_matrix(500, 384, 11, at::kBFloat16);
  const int threads = num_threads();
  set_num_threads(1);
  const RtnResult one = rtn_rows(w, {4, 128, false});
  for (int t : {2, 3, 8}) {
    set_num_threads(t);
    const RtnResult many = rtn_rows(w, {4, 128, false});
    expect_same(one.q, many.q);
    EXPECT_EQ(one.error, many.error);
    EXPECT_EQ(one.weight, many.weight);
  }
  set_num_threads(threads);
}

TEST(Rtn, OtherTypesAreRefused) {
  EXPECT_THROW(rtn_rows(at::zeros({2, 2}, at::kDouble), {4, -1, true}), Error);
  EXPECT_THROW(rtn_rows(at::zeros({2, 2}, at::kFloat), {9, -1, true}), Error);
}

}  // namespace
}  // namespace statera
