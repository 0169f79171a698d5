// Accumulators against direct sums, and their independence of threads and batches.
#include "quant/calib/accumulators.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace statera {
namespace {

at::Tensor random_rows(int64_t rows, int64_t width, uint64_t seed) {
  at::Tensor x = at::empty({rows, width}, at::kFloat);
  Rng rng(seed);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data_ptr<float>()[i] = static_cast<float>(rng.normal_at(static_cast<uint64_t>(i)));
  return x;
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).norm() / b.norm()).item<double>();
}

TEST(Gram, EqualsTheSumOfOuterProductsOverSamplesAndTiles) {
  Gram gram(600);
  at::Tensor expected = at::zeros({600, 600}, at::kDouble);
  for (uint64_t s = 0; s < 3; ++s) {
    const at::Tensor x = random_rows(70 + static_cast<int64_t>(s), 600, s);
    gram.add(x, {});
    expected += at::mm(x.to(at::kDouble).t(), x.to(at::kDouble));
  }
  EXPECT_LT(relative(gram.value(), expected), 1e-6);
  EXPECT_TRUE(at::equal(gram.value(), gram.value().t()));
  EXPECT_EQ(gram.rows(), 70 + 71 + 72);
  gram.add(random_rows(1, 600, 9), {});  // goes on after it was read
  EXPECT_TRUE(at::equal(gram.value(), gram.value().t()));
}

TEST(Gram, RowWeightsCountRows) {
  const at::Tensor x = random_rows(10, 8, 1);
  at::Tensor w = at::ones({10});
  w[3] = 0;
  w[7] = 2;
  Gram weighted(8), repeated(8);
  weighted.add(x, w);
  repeated.add(at::cat({x.slice(0, 0, 3), x.slice(0, 4, 10), x.slice(0, 7, 8)}, 0), {});
  EXPECT_LT(relative(weighted.value(), repeated.value().to(at::kDouble)), 1e-6);
}

TEST(Gram, DoesNotDependOnThreads) {
  const int before = num_threads();
  std::vector<at::Tensor> results;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    Gram gram(700);
    for (uint64_t s = 0; s < 2; ++s) gram.add(random_rows(33, 700, s), {});
    results.push_back(gram.value().clone());
  }
  set_num_threads(before);
  EXPECT_TRUE(at::equal(results[0], results[1]));
  EXPECT_TRUE(at::equal(results[0], results[2]));
}

TEST(GramAccumulator, ReadersOfOneTensorShareOneGram) {
  auto pool = std::make_shared<GramPool>();
  GramAccumulator q(pool), k(pool), other(pool);
  for (uint64_t s = 0; s < 3; ++s) {
    const at::Tensor x = random_rows(5, 16, s), z = random_rows(5, 16, 100 + s);
    q.add(x, {});
    k.add(x, {});
    other.add(z, {});
  }
  EXPECT_EQ(q.gram(), k.gram());
  EXPECT_NE(q.gram(), other.gram());
  EXPECT_EQ(q.gram()->rows(), 15);  // counted once, not once per reader
  EXPECT_THROW(k.add(random_rows(5, 16, 7), {}), Bug);
}

TEST(AbsMaxAccumulator, KeepsTheLargestOfEachChannel) {
  AbsMaxAccumulator a;
  EXPECT_FALSE(a.value().defined());
  const at::Tensor x = random_rows(9, 6, 1), z = random_rows(4, 6, 2);
  a.add(x, {});
  a.add(z, {});
  EXPECT_TRUE(at::equal(a.value(), at::abs(at::cat({x, z}, 0)).amax(0)));
}

TEST(InputKeeper, KeepsTheSameShareOfRowsForAnyBatching) {
  const at::Tensor x = random_rows(1000, 3, 4);
  InputKeeper whole(100, 1000, 7), parts(100, 1000, 7), all(0, 1000, 7);
  Pass pass;
  pass.kinds = at::zeros({1000}, at::kChar);
  pass.kinds.slice(0, 500, 1000).fill_(1);
  whole.add(x, pass);
  all.add(x, pass);
  for (int64_t from = 0; from < 1000; from += 130) {
    const int64_t to = std::min<int64_t>(1000, from + 130);
    Pass part;
    part.kinds = pass.kinds.slice(0, from, to);
    parts.add(x.slice(0, from, to), part);
  }
  EXPECT_TRUE(at::equal(whole.rows(), parts.rows()));
  EXPECT_TRUE(at::equal(whole.kinds(), parts.kinds()));
  EXPECT_TRUE(at::equal(all.rows(), x));
  EXPECT_NEAR(static_cast<double>(whole.rows().size(0)), 100, 35);
  const auto vision = whole.kinds().sum().item<int64_t>();
  EXPECT_NEAR(static_cast<double>(vision), static_cast<double>(whole.rows().size(0)) / 2, 25);
}

}  // namespace
}  // namespace statera
