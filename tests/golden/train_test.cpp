// Training of tiny checkpoints against transformers and torch's AdamW (tools/golden/train.py): the gradient of the first step, ten losses
// and gradient norms; and the same numbers from packed samples, from lanes and with activation checkpointing.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <utility>

#include "support/training.h"

namespace statera {
namespace {

using namespace training;

class Training : public testing::TestWithParam<std::string> {};

TEST_P(Training, FirstGradientEqualsTransformers) {
  const Golden golden(GetParam());
  Started run = start(GetParam(), golden);
  Trainer::Step step;
  const auto grads = run.trainer->gradients(run.alone(), step);
  size_t seen = 0;
  for (size_t p = 0; p < grads.size(); ++p) {
    const std::string& name = run.trainer->parameters()[p].name;
    const TensorInfo* info = golden.file.find(golden_name(golden.file, name));
    ASSERT_NE(info, nullptr) << name;
    ASSERT_TRUE(grads[p].defined()) << name;
    EXPECT_LT(error_of(grads[p], golden.file.tensor(*info).reshape(grads[p].sizes())), kTolerance) << name;
    ++seen;
  }
  size_t wanted = 0;
  for (const TensorInfo& t : golden.file.tensors()) wanted += t.name.starts_with("grad.");
  EXPECT_EQ(seen, wanted);
  EXPECT_NEAR(step.loss, golden.floats("losses")[0], kTolerance * step.loss);
}

TEST_P(Training, TenStepsFollowTransformers) {
  const Golden golden(GetParam());
  const auto losses = golden.floats("losses"), norms = golden.floats("norms");
  Started run = start(GetParam(), golden);
  const auto packed = run.packed();
  for (size_t i = 0; i < losses.size(); ++i) {
    const Trainer::Step step = run.trainer->step(packed);
    EXPECT_NEAR(step.loss, losses[i], kTolerance * losses[i]) << "step " << i;
    EXPECT_NEAR(step.grad_norm, norms[i], 10 * kTolerance * norms[i]) << "step " << i;
  }
  EXPECT_LT(losses.back(), 0.9 * losses.front());
}

TEST_P(Training, PackedLanesAndCheckpointsGiveTheGradientsOfSamplesAlone) {
  const Golden golden(GetParam());
  Started alone = start(GetParam(), golden);
  Trainer::Step step;
  const auto wanted = alone.trainer->gradients(alone.alone(), step);
  for (const auto& [lanes, checkpointing] : std::vector<std::pair<int64_t, bool>>{{1, false}, {2, false}, {1, true}, {3, true}}) {
    Started run = start(GetParam(), golden, {.lanes = lanes, .checkpointing = checkpointing});
    Trainer::Step other;
    const auto grads = run.trainer->gradients(run.packed(), other);
    EXPECT_NEAR(other.loss, step.loss, 1e-5 * step.loss);
    for (size_t p = 0; p < grads.size(); ++p)
      EXPECT_LT(error_of(grads[p], wanted[p]), kTolerance) << run.trainer->parameters()[p].name << " lanes " << lanes << " checkpointing " << checkpointing;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, Training, testing::Values("qwen2", "qwen3", "qwen2_vl", "qwen3_vl"), [](const auto& info) { return info.param; });

// Every registered model: gradients reach every weight that learns and is used, and the loss falls.
TEST(Training, EveryTinyCheckpointLearnsItsGoldenPrompt) {
  for (const std::string& name : tiny::checkpoints()) {
    if (std::filesystem::exists(tiny::folder(name) + "/same_as.json")) continue;
    tiny::Opened opened = tiny::open(tiny::folder(name));
    Model& model = *opened.model;
    const SafetensorsFile file(tiny::folder(name) + "/golden.safetensors");
    TrainSample s;
    s.inputs = tiny::inputs(file);
    if (!s.inputs.position_ids.defined()) s.inputs.position_ids = model.positions(s.inputs).first;
    s.learned_T = (model.token_kinds(s.inputs.input_ids) == 0).to(at::kChar);
    TrainSettings settings;
    for (double& rate : settings.rates) rate = 1e-2;
    settings.schedule = {"constant", 0, 1};
    Trainer trainer(model, make_parameters(model, {std::begin(kAll), std::end(kAll)}, at::kFloat), settings);
    const std::vector<std::vector<TrainSample>> batch{{s}};
    Trainer::Step first;
    const auto grads = trainer.gradients(batch, first);
    // An expert that no token of the prompt chose has none.
    std::set<std::string> experts;
    for (const auto& [path, site] : model.params.linears) {
      if (site->role == Role::expert) experts.insert(path + ".weight");
    }
    size_t reached = 0;
    for (size_t p = 0; p < grads.size(); ++p) {
      const std::string& weight = trainer.parameters()[p].name;
      if (experts.count(weight) > 0) {
        reached += grads[p].defined();
      } else {
        EXPECT_TRUE(grads[p].defined()) << name << " " << weight;
      }
    }
    EXPECT_GE(reached, experts.size() / 2) << name;
    double last = 0;
    for (int i = 0; i < 8; ++i) last = trainer.step(batch).loss;
    EXPECT_LT(last, 0.7 * first.loss) << name;
  }
}

TEST(Training, WeightsInBf16FollowTheirFp32Masters) {
  const Golden golden("qwen3");
  const auto losses = golden.floats("losses");
  Started run = start("qwen3", golden, {.dtype = at::kBFloat16});
  const auto packed = run.packed();
  for (float loss : losses) EXPECT_NEAR(run.trainer->step(packed).loss, loss, 0.03 * loss);
  for (size_t p = 0; p < run.trainer->parameters().size(); ++p) {
    const at::Tensor master = run.trainer->optimizer().states()[p].master;
    EXPECT_TRUE(at::equal(run.trainer->parameters()[p].leaf.detach(), master.to(at::kBFloat16)));
  }
}

TEST(Training, MomentsInFewerBitsKeepTheLosses) {
  const Golden golden("qwen3");
  const auto losses = golden.floats("losses");
  for (const auto bits : {StateBits::bf16, StateBits::eight}) {
    Started run = start("qwen3", golden, {.states = bits});
    const auto packed = run.packed();
    for (float loss : losses) EXPECT_NEAR(run.trainer->step(packed).loss, loss, 0.01 * loss);
  }
}

TEST(Training, FrozenPartsStay) {
  const Golden golden("qwen3_vl");
  tiny::Opened opened = tiny::open(tiny::folder("qwen3_vl"));
  Model& model = *opened.model;
  std::map<std::string, at::Tensor> before;
  for (const auto& [path, site] : model.params.linears) before[path] = site->weight->dense().to(at::kFloat).clone();
  TrainSettings settings;
  for (double& rate : settings.rates) rate = 1e-2;
  settings.schedule = {"constant", 0, 1};
  Trainer trainer(model, make_parameters(model, {Part::merger}, at::kFloat), settings);
  const std::vector<std::vector<TrainSample>> batch{golden.samples(model)};
  trainer.step(batch);
  size_t changed = 0;
  for (const auto& [path, site] : model.params.linears) {
    const bool same = at::equal(site->weight->dense(), before[path]);
    // The last tap joins visual rows behind the last block: no learned token sees it.
    const bool reached = site->role == Role::projector && path.find("deepstack_merger_list.1") == path.npos;
    EXPECT_EQ(same, !reached) << path;
    changed += !same;
  }
  EXPECT_EQ(changed, 4u);
}

}  // namespace
}  // namespace statera
