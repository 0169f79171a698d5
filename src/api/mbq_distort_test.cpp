// MBQ's distort, and what it must not touch: groups searched in any order without it, pass-through blocks before, the hidden states that a run
// keeps against those of the model that it wrote (checks 13, 14 and 15 of mbq.md).
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "api/quantize.h"
#include "api/test_checkpoints.h"
#include "base/threads.h"
#include "ckpt/safetensors.h"
#include "quant/calib/block_runs.h"
#include "quant/calib/forward.h"
#include "quant/calib/test_samples.h"
#include "quant/pipeline.h"
#include "quant/test_output.h"

namespace statera {
namespace {
using namespace calib_test;
namespace fs = std::filesystem;

QuantizeOptions options_of(const std::string& out, bool distort) {
  QuantizeOptions o;
  o.model = root("examples/tiny-qwen3-vl");
  o.out = out;
  o.method = "mbq";
  o.mbq_distort = distort;
  o.w_bits = 3;
  o.w_group = 32;
  o.n_samples = 6;
  o.max_seq_len = 256;
  return o;
}

using Losses = std::map<std::string, std::vector<double>>;  // of every ratio, by block and group
Losses losses_of(const QuantizeReport& r) {
  Losses out;
  for (const auto& s : r.scales) out[s.block + " " + s.group] = s.losses;
  return out;
}

// A model whose blocks name their scale groups in reverse.
class Reversed : public Model {
 public:
  explicit Reversed(const Model& model) : model_(model), stack_(model.language()) {
    config = model.config;
    params = model.params;
    dtype = model.dtype;
  }
  const LanguageStack& language() const override { return stack_; }
  const VisionStack* vision() const override { return model_.vision(); }
  ModelLimits limits() const override { return model_.limits(); }
  std::pair<at::Tensor, std::vector<int64_t>> positions(const ModelInputs& inputs) const override { return model_.positions(inputs); }
  at::Tensor token_kinds(const at::Tensor& ids) const override { return model_.token_kinds(ids); }
  ResidualEnds residual_ends() const override { return model_.residual_ends(); }
  std::optional<VisualFeatures> see(const ModelInputs& inputs, Tap* tap) const override { return model_.see(inputs, tap); }

 private:
  struct Blocks : LanguageStack {
    const LanguageStack& of;
    explicit Blocks(const LanguageStack& stack) : of(stack) {}
    int64_t blocks() const override { return of.blocks(); }
    at::Tensor block(int64_t i, const at::Tensor& h, Pass& pass) const override { return of.block(i, h, pass); }
    Topology topology(int64_t i) const override {
      Topology t = of.topology(i);
      std::reverse(t.groups.begin(), t.groups.end());
      return t;
    }
    at::Tensor enter(const at::Tensor& ids, const VisualFeatures* visual, Pass& pass) const override { return of.enter(ids, visual, pass); }
    at::Tensor leave(const at::Tensor& h, const Pass& pass) const override { return of.leave(h, pass); }
    at::Tensor head(const at::Tensor& h, const Pass& pass) const override { return of.head(h, pass); }
    bool cache_valid(int64_t before, int64_t after) const override { return of.cache_valid(before, after); }
  };
  const Model& model_;
  Blocks stack_;
};

// Check 13, first half. Original inputs are passed on, so that no group sees what another one chose in the block before; under distort it does.
TEST(MbqGroups, SearchedInAnotherOrderChooseTheSameWithoutDistort) {
  TempDir dir;
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.n_samples = 6, .max_seq_len = 256});
  Reversed reversed(*tiny.model);
  QuantizeSettings s;
  s.method = "mbq";
  s.plan.weights = {3, 32, true};
  s.version = "test";
  s.data = &data;
  s.propagate_original = true;
  const QuantizeReport forward = run_quantization(*tiny.model, tiny.source, s, dir / "forward");
  const QuantizeReport backward = run_quantization(reversed, tiny.source, s, dir / "backward");
  EXPECT_EQ(forward.scales.front().group, "input_layernorm");
  EXPECT_EQ(backward.scales.front().group, "up_proj");
  EXPECT_EQ(losses_of(forward), losses_of(backward));
  s.propagate_original = false;
  s.mbq.distort = true;  // the order is that of phases, whatever the topology's
  const QuantizeReport distorted = run_quantization(reversed, tiny.source, s, dir / "distorted");
  EXPECT_EQ(distorted.scales.front().group, "input_layernorm");
}

// Check 13, second half: scales found without distort, folded into the model and not rounded.
TEST(MbqGroups, FoldedBlocksGiveWhatTheyGaveBefore) {
  TempDir dir;
  const QuantizeReport r = quantize(options_of(dir / "out", false));
  c10::InferenceMode no_gradients;
  const SafetensorsFile scales(dir / "out/calibration/scales.safetensors");
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.n_samples = 1, .max_seq_len = 256});
  ModelInputs in = data.inputs(0);
  const LanguageStack& stack = tiny.model->language();
  Pass pass = make_pass(*tiny.model, in);
  const auto seen = tiny.model->see(in);
  at::Tensor h = stack.enter(in.input_ids, seen ? &*seen : nullptr, pass);
  size_t folded = 0;
  for (int64_t i = 0; i < stack.blocks(); ++i) {
    const at::Tensor before = stack.block(i, h, pass);
    for (const auto& s : r.scales) {
      for (const ScaleGroup& g : stack.topology(i).groups) {
        if (s.group != g.name || s.block != "model.language_model.layers." + std::to_string(i)) continue;
        fold_scale(g, scales.tensor(s.block + "." + s.group));
        ++folded;
      }
    }
    EXPECT_LT((stack.block(i, h, pass) - before).norm().item<double>(), 1e-5 * before.norm().item<double>()) << i;
    h = before;
  }
  EXPECT_EQ(folded, r.scales.size());
}

// Check 14: with one group of the last block rounded and all else passed through, the distorted input is the clean one.
TEST(MbqDistort, BehindLayersThatStayFloatingGivesWhatItGivesWithout) {
  TempDir dir;
  const std::map<std::string, std::string> others{{"qkv", "o_proj|mlp"}, {"mlp", "self_attn|down_proj"}, {"down", "self_attn|gate_proj|up_proj"}};
  for (const auto& [group, skipped] : others) {
    for (int64_t a_bits : {16, 8}) {
      std::map<bool, std::map<std::string, std::string>> digests;
      std::map<bool, Losses> losses;
      for (bool distort : {false, true}) {
        QuantizeOptions o = options_of(dir / (group + std::to_string(a_bits) + (distort ? "d" : "")), distort);
        o.a_bits = a_bits;
        if (a_bits == 8) o.w_group = -1;
        o.ignore = {"layers\\.[0-2]\\.", skipped};
        losses[distort] = losses_of(quantize(o));
        for (auto& [name, digest] : output_digests(o.out)) {
          if (name.ends_with(".safetensors") && !name.starts_with("calibration")) digests[distort][name] = digest;
        }
      }
      EXPECT_EQ(losses[false].size(), 1u) << group;
      EXPECT_EQ(losses[false], losses[true]) << group << a_bits;
      EXPECT_EQ(digests[false], digests[true]) << group << a_bits;
    }
  }
}

// The other half of check 14.
TEST(MbqDistort, FirstGroupOfTheFirstBlockSeesCleanInputsAndTheLaterOnesDoNot) {
  TempDir dir;
  for (int64_t a_bits : {16, 8}) {
    std::map<bool, Losses> losses;
    for (bool distort : {false, true}) {
      QuantizeOptions o = options_of(dir / (std::to_string(a_bits) + (distort ? "d" : "")), distort);
      o.a_bits = a_bits;
      if (a_bits == 8) o.w_group = -1;
      if (!distort) o.propagate = "original";
      losses[distort] = losses_of(quantize(o));
    }
    ASSERT_EQ(losses[false].size(), losses[true].size());
    for (const auto& [name, clean] : losses[false]) {
      const bool first = name == "model.language_model.layers.0 input_layernorm";
      EXPECT_EQ(losses[true].at(name) == clean, first) << name;
      // Errors of before are part of the distance to the clean target, whatever the candidate.
      if (!first) { EXPECT_GT(losses[true].at(name)[0], clean[0]) << name; }
    }
  }
}

// Copies the hidden states of a run before they are dropped; a later one of the same name counts (the language stack is entered again behind the tower).
struct StateKeeper {
  std::string out, to;
  void operator()(size_t) const {
    fs::create_directories(to);
    for (const auto& e : fs::directory_iterator(fs::path(out).parent_path())) {
      if (!e.path().filename().string().starts_with(fs::path(out).filename().string() + ".partial-")) continue;
      for (const auto& f : fs::directory_iterator(e.path())) {
        if (f.path().extension() == ".state") fs::copy_file(f.path(), fs::path(to) / f.path().filename(), fs::copy_options::overwrite_existing);
      }
    }
  }
};

void expect_same_states(const std::string& a, const std::string& b) {
  const SafetensorsFile one(a), other(b);
  ASSERT_EQ(one.tensors().size(), other.tensors().size()) << a;
  for (const TensorInfo& t : one.tensors()) EXPECT_TRUE(at::equal(one.tensor(t), other.tensor(*other.find(t.name)))) << a << " " << t.name;
}

// The samples through all blocks of a model, states of every block end in the folder.
std::string walked(const Model& model, const CalibData& data, const std::string& folder) {
  fs::create_directory(folder);
  Calibrator walk(model, data, folder, nullptr);
  walk.start(0, {});
  for (int64_t b = 0; b < walk.blocks(); ++b) BlockRuns(walk, b, {}).advance();
  return folder + "/";
}

struct DistortCase {
  std::string method;
  int64_t a_bits;
  bool tower;
};
class MbqDistortedStates : public ::testing::TestWithParam<DistortCase> {};

// Check 15: every distorted state is what the blocks of the written checkpoint make of the one before, the clean ones never see a rounded weight;
// behind the last block the logits are those of the written model.
TEST_P(MbqDistortedStates, AreThoseOfTheWrittenModelBitForBitAndCleanOnesThoseOfTheSource) {
  at::set_num_threads(1);
  TempDir dir;
  const auto& [method, a_bits, tower] = GetParam();
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.n_samples = 6, .max_seq_len = 256});
  QuantizeSettings s;
  s.method = method;
  s.plan.weights = {3, a_bits == 8 ? -1 : 32, true};
  if (a_bits == 8) s.plan.act = ActQuant{8};
  s.plan.select.vision = s.plan.select.projector = tower;
  s.version = "test";
  s.data = &data;
  s.mbq.distort = true;
  QuantizeHooks hooks;
  hooks.after_unit = StateKeeper{dir / "out", dir / "kept"};
  run_quantization(*tiny.model, tiny.source, s, dir / "out", hooks);
  const Opened written(dir / "out");
  const auto packed_logits = [&](const Model& model) {
    c10::InferenceMode no_gradients;
    ModelInputs in = data.inputs(0);
    Pass pass = make_pass(model, in);
    return model.language().head(forward_hidden(model, in, pass), pass);
  };
  const at::Tensor packed = packed_logits(*written.model);  // by the kernels that an evaluation runs
  for (const auto& [path, site] : written.model->params.linears) {
    if (const auto q = site->weight->unpack()) site->weight = make_calibrated(*q);
  }
  const std::string rounded = walked(*written.model, data, dir / "rounded"), original = walked(*tiny.model, data, dir / "original");
  const int64_t L = written.model->language().blocks();
  for (int64_t b = 0; b <= L; ++b) {
    const std::string name = "activations-" + std::to_string(b) + ".state";
    expect_same_states(dir / ("kept/" + name), rounded + name);
    expect_same_states(dir / ("kept/original-" + name), original + name);
  }
  c10::InferenceMode no_gradients;
  const SafetensorsFile last(dir / ("kept/activations-" + std::to_string(L) + ".state"));
  ModelInputs in = data.inputs(0);
  Pass pass = make_pass(*written.model, in);
  const auto seen = written.model->see(in);
  written.model->language().enter(in.input_ids, seen ? &*seen : nullptr, pass);
  const at::Tensor logits = written.model->language().head(written.model->language().leave(last.tensor("0"), pass), pass);
  EXPECT_TRUE(at::equal(logits, packed_logits(*written.model)));
  // The largest value of a token lies half way between two codes by definition, so the last bit of a sum moves it by a step of 127.
  EXPECT_LT((logits - packed).norm().item<double>(), (a_bits == 8 ? 3e-2 : 1e-4) * packed.norm().item<double>());
}

INSTANTIATE_TEST_SUITE_P(Methods, MbqDistortedStates,
                         ::testing::Values(DistortCase{"mbq", 16, false}, DistortCase{"mbq", 8, false}, DistortCase{"mbq+gptq", 16, false},
                                           DistortCase{"smoothquant+mbq", 16, false}, DistortCase{"mbq", 16, true}, DistortCase{"mbq+gptq", 8, true}),
                         [](const auto& p) {
                           std::string name = p.param.method + std::to_string(p.param.a_bits) + (p.param.tower ? "tower" : "");
                           std::replace(name.begin(), name.end(), '+', '_');
                           return name;
                         });

TEST(MbqDistort, ResultsDoNotDependOnThreads) {
  TempDir dir;
  const int before = num_threads();
  for (int threads : {1, 3}) {
    set_num_threads(threads);
    quantize(options_of(dir / std::to_string(threads), true));
  }
  set_num_threads(before);
  EXPECT_EQ(output_digests(dir / "1"), output_digests(dir / "3"));
}

TEST(MbqDistort, PlanCountsTheSecondWalkAndLeavesNoFileOfIt) {
  TempDir dir;
  std::map<bool, QuantizeReport> planned;
  for (bool distort : {false, true}) {
    QuantizeOptions o = options_of(dir / "out", distort);
    o.plan = true;
    planned[distort] = quantize(o);
  }
  const QuantizeReport &off = planned[false], &on = planned[true];
  const uint64_t states = off.plan->disk_bytes - off.disk_bytes();  // of one walk
  EXPECT_GT(states, 0u);
  EXPECT_EQ(on.plan->disk_bytes, on.disk_bytes() + 2 * states);
  EXPECT_GT(on.expected_ram, off.expected_ram);
  EXPECT_GT(on.plan->time.operations, off.plan->time.operations);
  const QuantizeReport written = quantize(options_of(dir / "out", true));
  EXPECT_EQ(output_digests(dir / "out").size(), on.files.size() + 3);  // the report's two and the scales
  EXPECT_NE(read_file(dir / "out/statera.json").find("\"distort\": true"), std::string::npos);
  EXPECT_GT(written.verified.logits, 0);
}

TEST(MbqDistort, PassingOriginalsOnIsRefusedBeforeWork) {
  TempDir dir;
  QuantizeOptions o = options_of(dir / "out", true);
  o.propagate = "original";
  EXPECT_EQ(message_of([&] { quantize(o); }).find("usage: --mbq-distort"), 0u);
  EXPECT_TRUE(fs::is_empty(static_cast<const std::string&>(dir)));
  o.method = "awq";  // has no part in it
  quantize(o);
}

TEST(MbqDistort, AFilePublishedWithMbqTurnsItOn) {
  TempDir dir;
  write_text(dir / "m.jsonl", Json(llava({picture("chart.png")}, {"<image>\nwhat?", "A chart."})).dump() + "\n");
  write_text(dir / "r.yaml", "method: mbq\nw_bit: 4\nw_group: 32\nreweight: True\ndistort: True\nloss_mode: mae\ncalib_data: coco\ndata_path: " + (dir / "m.jsonl") + "\n");
  QuantizeOptions o;
  o.model = root("examples/tiny-qwen3-vl");
  o.out = dir / "out";
  o.recipe = dir / "r.yaml";
  const QuantizeReport r = quantize(o);
  EXPECT_TRUE(r.recipe.at("steps").as_array()[0].at("mbq").at("distort").as_bool("distort"));
  EXPECT_NE(read_file(dir / "out/statera.json").find("\"propagate\": \"quantized\""), std::string::npos);
}

}  // namespace
}  // namespace statera
