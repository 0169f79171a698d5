// Adapters on tiny checkpoints: over a base packed in 4 bits, and dropout, whose masks are functions of the step and of places alone.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sin.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "base/threads.h"
#include "support/training.h"

namespace statera {
namespace {

using namespace training;

// Second matrices begin as 0, and gradients of first ones with them.
void fill_second(Trainer& trainer) {
  for (const Parameter& p : trainer.parameters()) {
    if (p.name.ends_with(".lora_B.weight")) p.leaf.detach().copy_(at::sin(at::arange(p.leaf.numel(), at::kFloat)).reshape(p.leaf.sizes()) * 0.05);
  }
}

// Matrices of the blocks in 4 bits, packed or as the floats that they stand for.
void round_blocks(Model& model, bool packed) {
  for (const auto& [path, site] : model.params.linears) {
    if (site->role != Role::attention && site->role != Role::mlp) continue;
    const QTensor q = rtn(site->weight->dense().to(at::kFloat), {.bits = 4, .group = 32, .symmetric = false});
    site->weight = packed ? make_packed(q) : make_dense(q.dequantize());
  }
}

Started over_four_bits(const Golden& golden, bool packed, How how) {
  Started run;
  run.opened = tiny::open(tiny::folder("qwen3"));
  round_blocks(*run.opened.model, packed);
  how.lora = {.r = 4, .targets = {"_proj$"}};
  prepare(run, golden, how);
  return run;
}

void expect_close(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& wanted, const Trainer& trainer, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t p = 0; p < got.size(); ++p) {
    ASSERT_TRUE(got[p].defined() && wanted[p].defined()) << trainer.parameters()[p].name;
    EXPECT_GT(wanted[p].abs().max().item<double>(), 0) << trainer.parameters()[p].name;
    EXPECT_LT(error_of(got[p], wanted[p]), tolerance) << trainer.parameters()[p].name;
  }
}

TEST(AdaptersOverFourBits, HaveTheGradientsOfThoseOverTheDequantizedBase) {
  const Golden golden("qwen3");
  for (const bool checkpointing : {false, true}) {
    Started packed = over_four_bits(golden, true, {.checkpointing = checkpointing}), dense = over_four_bits(golden, false, {});
    fill_second(*packed.trainer);
    fill_second(*dense.trainer);
    Trainer::Step a, b;
    const auto got = packed.trainer->gradients(packed.packed(), a), wanted = dense.trainer->gradients(dense.packed(), b);
    EXPECT_NEAR(a.loss, b.loss, 1e-5 * b.loss);
    expect_close(got, wanted, *packed.trainer, kTolerance);
  }
}

TEST(AdaptersOverFourBits, LearnAndLeaveThePackedBaseAlone) {
  const Golden golden("qwen3");
  Started run = over_four_bits(golden, true, {.rate = 2e-2});
  std::map<std::string, at::Tensor> before;
  for (const auto& [path, site] : run.opened.model->params.linears) before[path] = site->weight->dense().clone();
  const auto batches = run.packed();
  const double first = run.trainer->step(batches).loss;
  double last = first;
  for (int i = 0; i < 9; ++i) last = run.trainer->step(batches).loss;
  EXPECT_LT(last, 0.8 * first);
  size_t packed = 0;
  for (const auto& [path, site] : run.opened.model->params.linears) {
    packed += site->weight->unpack().has_value();
    EXPECT_TRUE(at::equal(site->weight->dense(), before.at(path))) << path;
  }
  EXPECT_EQ(packed, 14u);  // seven in each of two blocks
}

How dropping(double p, uint64_t seed = 1) { return {.lora = {.r = 4, .targets = {"."}, .seed = seed, .dropout = p}}; }

std::vector<at::Tensor> gradients(Started& run) {
  Trainer::Step step;
  fill_second(*run.trainer);
  return run.trainer->gradients(run.packed(), step);
}

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b[i])) return false;
  }
  return a.size() == b.size();
}

TEST(AdapterDropout, TheSameStepHasTheSameGradientsAndAnotherStepOthers) {
  const Golden golden("qwen3");
  Started run = start("qwen3", golden, dropping(0.3)), none = start("qwen3", golden, dropping(0));
  const auto first = gradients(run);
  EXPECT_TRUE(same(gradients(run), first));
  Started again = start("qwen3", golden, dropping(0.3));
  EXPECT_TRUE(same(gradients(again), first));
  const Trainer& trainer = *again.trainer;
  auto as_it_is = [&](size_t p) {
    AdamW::State s = trainer.optimizer().states()[p];
    if (!s.master.defined()) s.master = trainer.parameters()[p].leaf.detach().clone();
    return s;
  };
  again.trainer->restore(as_it_is, 5);  // the same weights at another step
  EXPECT_FALSE(same(gradients(again), first));
  EXPECT_FALSE(same(gradients(none), first));
}

TEST(AdapterDropout, DropsNothingWhenItIsZeroOrALossIsOnlyMeasured) {
  const Golden golden("qwen3");
  Started run = start("qwen3", golden, dropping(0.5)), none = start("qwen3", golden, dropping(0));
  gradients(run);
  fill_second(*none.trainer);
  EXPECT_EQ(run.trainer->evaluate(run.samples), none.trainer->evaluate(none.samples));
  Trainer::Step dropped, whole;
  run.trainer->gradients(run.packed(), dropped);
  none.trainer->gradients(none.packed(), whole);
  EXPECT_NEAR(whole.loss, none.trainer->evaluate(none.samples).first / static_cast<double>(whole.labels), 1e-5);
  EXPECT_GT(std::abs(dropped.loss - whole.loss), 1e-4);
}

TEST(AdapterDropout, IsTheSameForAnyNumberOfThreads) {
  const Golden golden("qwen3");
  How how = dropping(0.3);
  how.lanes = 2;
  const int before = num_threads();
  std::vector<std::vector<at::Tensor>> all;
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    Started run = start("qwen3", golden, how);
    all.push_back(gradients(run));
  }
  set_num_threads(before);
  EXPECT_TRUE(same(all[1], all[0]));
  EXPECT_TRUE(same(all[2], all[0]));
}

// Over pictures and clips together, towers and experts included: a block that runs again drops what it dropped.
TEST(AdapterDropout, CheckpointingGivesTheSameGradients) {
  using Case = std::pair<std::string, const char*>;
  for (const auto& [name, file_name] : {Case{"qwen2", "golden"}, Case{"qwen3_moe", "golden"}, Case{"qwen2_5_vl", "golden_video"}, Case{"qwen3_vl", "golden_mixed"}}) {
    std::vector<std::vector<at::Tensor>> all;
    for (const bool checkpointing : {false, true}) {
      Started run;
      run.opened = tiny::open(tiny::folder(name));
      Model& model = *run.opened.model;
      const SafetensorsFile file(tiny::folder(name) + "/" + file_name + ".safetensors");
      TrainSample s;
      s.inputs = tiny::inputs(file);
      if (!s.inputs.position_ids.defined()) s.inputs.position_ids = model.positions(s.inputs).first;
      s.learned_T = (model.token_kinds(s.inputs.input_ids) == 0).to(at::kChar);
      run.samples = {s, s};
      TrainSettings settings;
      settings.checkpointing = checkpointing;
      settings.lora_dropout = 0.3;
      run.trainer = std::make_unique<Trainer>(model, make_adapters(model, dropping(0.3).lora, at::kFloat), settings);
      all.push_back(gradients(run));
    }
    size_t compared = 0;
    for (size_t p = 0; p < all[0].size(); ++p) {
      ASSERT_EQ(all[0][p].defined(), all[1][p].defined()) << name;
      if (!all[0][p].defined() || all[0][p].abs().max().item<double>() < 1e-7) continue;
      EXPECT_LT(error_of(all[1][p], all[0][p]), kTolerance) << name << " " << p;
      ++compared;
    }
    EXPECT_GT(compared, all[0].size() / 2) << name;
  }
}

}  // namespace
}  // namespace statera
