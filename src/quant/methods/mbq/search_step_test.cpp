// The search step under distort on one layer behind another, without a model: what targets and trials come from.
#include "quant/methods/mbq/search_step.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "nn/linear.h"
#include "quant/methods/mbq/algo.h"
#include "quant/search/test_tensors.h"

namespace statera {
namespace {

constexpr int64_t kRows = 40, kWidth = 32;
const QSpec kSpec{3, 16, true};

// A block of up and down. What it is asked to observe of down's input is given.
class TwoLayers : public BlockJob {
 public:
  TwoLayers() {
    up_ = layer("up", 5);
    down_ = layer("down", 6);
    layers_ = {up_.handle(), down_.handle()};
  }
  const std::string& name() const override { return name_; }
  const Stack* stack() const override { return nullptr; }
  int64_t index() const override { return 0; }
  Topology topology() const override {
    ScaleGroup group{.name = "up", .norm = {}, .linear = up_, .linear_begin = 0, .linear_count = kWidth, .readers = {down_}, .reader_of = {}, .channels = kWidth, .replay = {}};
    group.replay = [down = down_](const at::Tensor& x, const Pass& pass) { return down(x, pass); };
    Topology t;
    t.groups = {group};
    t.phases = {{up_}, {down_}};
    return t;
  }
  std::span<const std::shared_ptr<LinearSite>> layers() const override { return layers_; }
  const QSpec& spec(const LinearSite&) const override { return kSpec; }
  int64_t rows() const override { return kRows; }
  Accumulator* statistics(const LinearSite& site) override { return &site == &down_.site() ? watched.get() : nullptr; }
  void observe(Inputs inputs, const std::map<const LinearSite*, Accumulator*>& into) override {
    check(inputs == Inputs::original, "the only group is of the first phase");
    into.at(&down_.site())->add(original, pass);
  }
  void finish(const LinearSite&, QTensor, std::optional<RoundingError>) override { throw Bug("a search rounds nothing"); }
  void measured(const LinearSite&, const OutputLoss&) override {}
  [[noreturn]] void refuse(const LinearSite&, std::string_view reason) const override { throw Error(ErrorKind::bad_file, std::string(reason)); }
  void scaled(ScaleRecord record) override { found = std::move(record); }
  void clipped(ClipRecord) override { throw Bug("a search of scales clips nothing"); }
  void rewrite(const std::string&, const at::Tensor&) override {}
  const Linear& down() const { return down_; }

  std::unique_ptr<Accumulator> watched;
  at::Tensor original;
  Pass pass;
  ScaleRecord found;

 private:
  static Linear layer(const std::string& path, uint64_t seed) {
    auto site = std::make_shared<LinearSite>();
    site->path = path;
    site->out = site->in = kWidth;
    site->weight = make_dense(weight_matrix(kWidth, kWidth, seed));
    return Linear(site);
  }
  std::string name_ = "block";
  Linear up_, down_;
  std::vector<std::shared_ptr<LinearSite>> layers_;
};

ScaleRecord searched(const at::Tensor& distorted, const at::Tensor& original, bool distort, const std::optional<ActQuant>& act = {}) {
  at::set_num_threads(1);
  const auto step = make_scale_search({.loss = {.reweight = false, .distort = distort}, .act = act, .search_tokens = 0});
  TwoLayers job;
  job.original = original;
  step->begin(job);
  job.watched = step->watch(job.down().site());
  job.watched->add(distorted, job.pass);
  step->apply(job);
  return job.found;
}

TEST(MbqSearchStep, TargetsComeFromOriginalInputsAndTrialsFromDistortedOnes) {
  const at::Tensor original = activations(kRows, kWidth, 1), distorted = original + normal_matrix(kRows, kWidth, 2) * 0.5;
  for (const std::optional<ActQuant>& act : {std::optional<ActQuant>{}, std::optional(ActQuant{8})}) {
    const ScaleRecord got = searched(distorted, original, true, act);
    const at::Tensor W = weight_matrix(kWidth, kWidth, 6), equal = at::ones({kRows}) / static_cast<double>(kRows), target = at::linear(original, W);
    const at::Tensor mean_K = (at::sum(at::abs(distorted), {0}, false, at::kDouble) / static_cast<double>(kRows)).to(at::kFloat);
    const ScaleChoice expected = mbq_search(std::vector{W}, mean_K, std::vector{kSpec}, act, [&](const MbqTrial& trial) {
      return weighted_error(target, trial_output(trial, 0, distorted), equal, ErrorNorm::mae);
    });
    EXPECT_EQ(got.ratio, expected.ratio);
    ASSERT_EQ(got.losses.size(), expected.losses.size());
    for (size_t k = 0; k < got.losses.size(); ++k) EXPECT_NEAR(got.losses[k] / expected.losses[k], 1, 1e-5);
    EXPECT_NE(got.losses, searched(distorted, original, false, act).losses);
  }
}

TEST(MbqSearchStep, WhereNotEveryRowArrivesTargetsComeFromTheTrialsInput) {
  const at::Tensor original = activations(kRows, kWidth, 1), distorted = original + normal_matrix(kRows, kWidth, 2) * 0.5;
  const at::Tensor fewer = distorted.slice(0, 0, kRows - 3);
  EXPECT_EQ(searched(fewer, original, true).losses, searched(fewer, original, false).losses);
  EXPECT_EQ(searched(distorted, original.slice(0, 0, 5), true).losses, searched(distorted, original, false).losses);
  EXPECT_NE(searched(distorted, original, true).losses, searched(distorted, original, false).losses);
}

}  // namespace
}  // namespace statera
