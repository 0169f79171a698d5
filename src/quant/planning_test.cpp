// Plans: exceptions by pattern, bits by budget, what servers refuse, and sizes to the byte.
#include "quant/planning.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "ckpt/format.h"
#include "nn/qtensor.h"
#include "quant/recipes/targets.h"
#include "quant/test_model.h"

namespace statera {
namespace {
namespace fs = std::filesystem;

QuantizeSettings settings(int bits = 4, int64_t group = 32, bool symmetric = true) {
  QuantizeSettings s;
  s.plan.weights = {bits, group, symmetric};
  s.version = "0.0.test";
  return s;
}

class Planning : public ::testing::Test {
 protected:
  Planning() {
    fs::create_directory(dir_ / "in");
    tensors_ = toy_tensors(at::kBFloat16);
    write_toy(dir_ / "in", tensors_);
    toy_.emplace(dir_ / "in");
  }
  QuantizeReport run(const QuantizeSettings& s, const std::string& out = "out") {
    Toy toy(dir_ / "in");
    return run_quantization(*toy.model, toy.source, s, dir_ / out);
  }
  QuantizeReport planned(const QuantizeSettings& s) { return plan_quantization(*toy_->model, toy_->source, s, dir_ / "out"); }
  // The message of the Error that planning ends with.
  std::string refusal(const QuantizeSettings& s) {
    try {
      planned(s);
    } catch (const Error& e) {
      return std::string(to_string(e.kind())) + ": " + e.message();
    }
    return "accepted";
  }
  QSpec spec_of(const OutputPlan& plan, const std::string& path) const {
    for (const LayerPlan& l : plan.layers) {
      if (l.stored.path == path) return l.stored.spec;
    }
    throw Bug("no layer " + path);
  }
  TempDir dir_;
  NamedTensors tensors_;
  std::optional<Toy> toy_;
};

Override override_of(const char* text) { return parse_override(text); }

TEST_F(Planning, TheLastOverrideThatSaysSomethingCounts) {
  PlanOptions p;
  p.weights = {4, 32, true};
  p.select.overrides = {override_of("bits=8,asym:down_proj"), override_of("bits=3:layers\\.1\\."), override_of("skip:layers\\.2\\.mlp")};
  const OutputPlan plan = plan_output(*toy_->model, toy_->source, p);
  EXPECT_EQ(spec_of(plan, "model.layers.0.mlp.down_proj"), (QSpec{8, 32, false}));
  EXPECT_EQ(spec_of(plan, "model.layers.1.mlp.down_proj"), (QSpec{3, 32, false}));
  EXPECT_EQ(spec_of(plan, "model.layers.1.self_attn.q_proj"), (QSpec{3, 32, true}));
  EXPECT_EQ(spec_of(plan, "model.layers.2.self_attn.q_proj"), (QSpec{4, 32, true}));
  EXPECT_EQ(plan.layers.size(), 7u * 3 - 3);
}

TEST_F(Planning, OverridesThatChangeNothingAreErrors) {
  QuantizeSettings s = settings();
  s.plan.select.overrides = {override_of("bits=3:no_such")};
  EXPECT_NE(refusal(s).find("finds no linear layer"), std::string::npos);
  s.plan.select.overrides = {override_of("bits=3:lm_head")};
  EXPECT_NE(refusal(s).find("finds only layers that stay floating"), std::string::npos);
  s.plan.select.overrides = {override_of("bits=3:(open")};
  EXPECT_NE(refusal(s).find("not a regular expression"), std::string::npos);
  s.plan.select.overrides = {override_of("group=64:down_proj")};
  EXPECT_NE(refusal(s).find("96 input channels do not divide into groups of 64"), std::string::npos);
  s = settings(8, -1, true);
  s.plan.act = ActQuant{8};
  s.plan.select.overrides = {override_of("group=32:down_proj")};
  EXPECT_NE(refusal(s).find("down_proj: 8-bit activations take one scale per row"), std::string::npos);
}

TEST_F(Planning, MixedPrecisionIsWrittenInGroupsAndReadBack) {
  QuantizeSettings s = settings();
  s.plan.select.vision = s.plan.select.head = true;
  s.plan.select.overrides = {override_of("bits=8,group=-1:down_proj"), override_of("bits=3,asym:self_attn"), override_of("bits=6:visual")};
  run(s);
  const Checkpoint c = Checkpoint::open(dir_ / "out");
  const Json& config = *c.quantization_config();
  EXPECT_EQ(config.at("config_groups").as_object().size(), 4u);
  const Format& format = format_of(config, "config");
  Toy toy(dir_ / "in");
  int checked = 0;
  for (const LayerPlan& l : plan_output(*toy.model, toy.source, s.plan).layers) {
    std::optional<ActQuant> act;
    const Weight w = format.read(c, config, l.stored.path, l.stored.out, l.stored.in, act);
    ASSERT_TRUE(w) << l.stored.path;
    const QTensor q = w->unpack().value(), expected = rtn(toy.source.checkpoint().tensor(l.source), l.stored.spec);
    EXPECT_EQ(q.spec, l.stored.spec) << l.stored.path;
    EXPECT_TRUE(q.q.equal(expected.q)) << l.stored.path;
    ++checked;
  }
  EXPECT_EQ(checked, 3 * 7 + 2);
  // Names that differ in memory stand beside those of the files.
  std::set<std::string> targets;
  for (const auto& [name, group] : config.at("config_groups").as_object()) {
    for (const Json& t : group.at("targets").as_array()) targets.insert(t.as_string());
  }
  EXPECT_TRUE(targets.count("visual.blocks.0.qkv"));
  EXPECT_TRUE(targets.count("model.visual.blocks.0.qkv"));
}

TEST_F(Planning, SizesAreThoseOfTheWrittenFilesToTheByte) {
  std::vector<QuantizeSettings> recipes = {settings(4, 32, true), settings(3, 32, false), settings(4, -1, true), settings(8, -1, true),
                                           settings(4, 32, true), settings(4, 32, false), settings(4, -1, true)};
  recipes[3].plan.act = ActQuant{8};
  recipes[4].plan.select.overrides = {override_of("bits=8,asym:down_proj"), override_of("bits=2,group=-1:gate_proj|up_proj"),
                                      override_of("skip:layers\\.1\\.self_attn")};
  recipes[5].plan.select.head = recipes[5].plan.select.vision = recipes[5].plan.select.projector = true;
  recipes[6].target_bits = 4.7;
  for (size_t i = 0; i < recipes.size(); ++i) {
    SCOPED_TRACE(i);
    QuantizeSettings s = recipes[i];
    s.overwrite = true;
    s.plan.max_shard_bytes = i % 2 ? 20'000 : 5'000'000'000;
    const QuantizeReport plan = planned(s), done = run(s);
    uint64_t tensors = 0;
    for (const auto& [name, bytes] : plan.files) EXPECT_EQ(bytes, file_size((dir_ / "out") + "/" + name)) << name;
    ASSERT_TRUE(plan.plan);
    const Checkpoint c = Checkpoint::open(dir_ / "out");
    EXPECT_EQ(plan.plan->tensors.size(), c.names().size());
    for (const PlanDetails::Tensor& t : plan.plan->tensors) {
      const TensorInfo* info = c.find(t.name);
      ASSERT_TRUE(info) << t.name;
      EXPECT_EQ(info->bytes, t.bytes) << t.name;
      EXPECT_EQ(info->shape, t.shape) << t.name;
      EXPECT_EQ(info->type->name, t.dtype) << t.name;
      tensors += t.bytes;
    }
    EXPECT_EQ(tensors, plan.result_bytes);
    EXPECT_EQ(plan.result_bytes, done.result_bytes);
    EXPECT_EQ(plan.bits_per_weight(), done.bits_per_weight());
    EXPECT_GT(plan.plan->time.seconds, 0);
    EXPECT_GE(plan.plan->disk_bytes, plan.disk_bytes());
  }
}

TEST_F(Planning, ABitBudgetIsKeptWithFusedLayersTogether) {
  double last = 1e9;
  for (double target : {3.0, 3.5, 4.5, 6.0, 8.5}) {
    QuantizeSettings s = settings();
    s.target_bits = target;
    const QuantizeReport r = planned(s), again = planned(s);
    EXPECT_LE(r.bits_per_weight(), target);
    EXPECT_EQ(r.bits, again.bits);
    double error = 0;
    for (const Json& set : r.bits.at("sets").as_array())
      error += set.at("relative_errors").at(std::to_string(set.at("bits").as_int())).as_double() * static_cast<double>(set.at("layers").as_array().size());
    EXPECT_LE(r.bits_per_weight(), target);
    EXPECT_LT(error, last);
    last = error;
    for (const auto& [name, reason] : r.plan->refusals) EXPECT_EQ(reason.find("q_proj/"), std::string::npos) << reason;
  }
  QuantizeSettings s = settings();
  s.target_bits = 2.4;
  EXPECT_NE(refusal(s).find("no less than 2.530 bits"), std::string::npos) << refusal(s);
  s.target_bits = 4;
  s.plan.select.overrides = {override_of("bits=4:.")};
  EXPECT_NE(refusal(s).find("overrides fix the bits of every layer"), std::string::npos);
  s.plan.select.overrides = {};
  s.plan.act = ActQuant{8};
  s.plan.weights = {8, -1, true};
  EXPECT_NE(refusal(s).find("--target-bits"), std::string::npos);
}

TEST_F(Planning, TheSensitiveLayerGetsMoreBitsAndFixedOnesKeepTheirs) {
  // One outlier column makes every group of this layer coarse.
  for (auto& [name, t] : tensors_) {
    if (name == "model.layers.1.mlp.down_proj.weight") {
      for (int64_t k = 0; k < t.size(1); k += 32) t.select(1, k).mul_(40);
    }
  }
  write_toy(dir_ / "in", tensors_);
  Toy toy(dir_ / "in");
  QuantizeSettings s = settings();
  s.plan.select.overrides = {override_of("bits=5:layers\\.2\\.self_attn")};
  const auto layers = select_layers(*toy.model, toy.source, s.plan.select, s.plan.weights);
  const BitChoice choice = choose_bits(toy.source, layers, s.plan, 4.8, {}, {}, nullptr);
  EXPECT_EQ(choice.bits.count("model.layers.2.self_attn.q_proj"), 0u);
  EXPECT_LE(choice.bytes, choice.budget);
  // Relative errors are small where a few weights carry the norm: what counts is the measured curve.
  double high = 0, low = 1e9;
  for (const auto& set : choice.sets) {
    high = std::max(high, set.errors[2]);
    low = std::min(low, set.errors[2]);
  }
  for (const auto& set : choice.sets) {
    if (set.errors[2] == high) {
      EXPECT_GE(set.bits, 4);
    }
    for (size_t i = 1; i < set.errors.size(); ++i) EXPECT_LT(set.errors[i], set.errors[i - 1]);
  }
  // Channels that carry the input count more: the same layer, weighted, has another error.
  InputEnergies energies;
  for (const auto& l : layers) {
    if (l.disk_path != "model.layers.0.mlp.down_proj") continue;
    at::Tensor e = at::empty({96}, at::kDouble).fill_(1e-3);
    e.slice(0, 0, 32).fill_(1);
    energies[l.site.get()] = e;
  }
  ASSERT_EQ(energies.size(), 1u);
  const BitChoice weighted = choose_bits(toy.source, layers, s.plan, 4.8, energies, {}, nullptr);
  ASSERT_TRUE(weighted.weighted);
  int differ = 0;
  for (size_t i = 0; i < choice.sets.size(); ++i) differ += choice.sets[i].errors != weighted.sets[i].errors;
  EXPECT_EQ(differ, 1);
}

TEST_F(Planning, WhatAServerWouldRefuseIsAnErrorBeforeWorkWithTheReason) {
  struct Case {
    const char* target;
    std::function<void(QuantizeSettings&)> change;
    const char* says;
  };
  auto overrides = [](std::vector<const char*> texts) {
    return [texts](QuantizeSettings& s) {
      for (const char* t : texts) s.plan.select.overrides.push_back(parse_override(t));
    };
  };
  const Case cases[] = {
      {"vllm", [](auto& s) { s.plan.select.ignore = {"layers\\.1\\.self_attn\\.k_proj"}; }, "model.layers.1.self_attn.q_proj/k_proj/v_proj: engines that fuse these layers need all of them"},
      {"vllm", overrides({"skip:layers\\.0\\.mlp\\.up_proj"}), "model.layers.0.mlp.gate_proj/up_proj"},
      {"vllm", overrides({"bits=8:v_proj"}), "need the same bits"},
      {"vllm", overrides({"group=16:layers\\.2\\.self_attn\\.q_proj"}), "model.layers.2.self_attn.q_proj/k_proj/v_proj"},
      {"vllm", overrides({"asym:layers\\.0\\.mlp\\.gate_proj"}), "model.layers.0.mlp.gate_proj/up_proj"},
      {"vllm", [](auto& s) { s.plan.weights = {4, -1, true}, s.plan.act = ActQuant{8}; }, "8-bit activations go with 8-bit weights only"},
      {"vllm", [](auto& s) { s.plan.select.head = true; }, "lm_head: the output head is not loaded quantized"},
      {"vllm", overrides({"bits=3,asym:self_attn\\.[qkv]_proj"}), "zero points of the outputs do not fill whole 32-bit words"},
      {"llama.cpp", [](auto&) {}, "GGUF files only"},
      {"transformers", [](auto& s) { s.plan.weights.symmetric = false; }, "packed zero points do not fit"},
      {"vllm", overrides({"bits=8:layers\\.0\\.self_attn\\.q_proj", "bits=8:layers\\.0\\.self_attn\\.k_proj"}), "model.layers.0.self_attn.q_proj/k_proj/v_proj"},
  };
  for (const Case& c : cases) {
    QuantizeSettings s = settings();
    c.change(s);
    s.targets = {c.target};
    const std::string text = refusal(s);
    EXPECT_EQ(text.find("unsupported: --target: " + std::string(c.target) + " would refuse it"), 0u) << text;
    EXPECT_NE(text.find(c.says), std::string::npos) << text;
    EXPECT_THROW(run(s), Error);
    EXPECT_FALSE(fs::exists(dir_ / "out"));
    // Without the target the run is allowed, with the same line as a warning (a server that reads no such files at all is none).
    s.targets.clear();
    bool warned = false;
    for (const std::string& w : planned(s).warnings) warned |= w.find(c.says) != w.npos;
    EXPECT_EQ(warned, std::string(c.target) != "llama.cpp") << c.says;
  }
  QuantizeSettings fine = settings();
  fine.targets = {"vllm", "transformers"};
  EXPECT_EQ(refusal(fine), "accepted");
}

// Layers by hand: shapes that the toy does not have.
TEST(Targets, RulesOnShapesAndExperts) {
  auto refused = [](std::string_view target, int64_t out, int64_t in, QSpec spec, Role role) {
    OutputPlan plan;
    auto site = std::make_shared<LinearSite>();
    site->role = role;
    site->path = "m";
    site->out = out;
    site->in = in;
    LayerPlan layer;
    layer.site = site;
    layer.stored = {"m", out, in, spec, {}, at::kBFloat16};
    plan.layers.push_back(layer);
    std::string all;
    for (const Refusal& r : refusals(plan, target)) all += r.reason + "\n";
    return all;
  };
  EXPECT_EQ(refused("vllm", 32, 64, {4, 32, false}, Role::mlp), "");
  EXPECT_NE(refused("transformers", 32, 64, {4, 32, false}, Role::mlp).find("packed zero points"), std::string::npos);
  EXPECT_EQ(refused("transformers", 8, 64, {4, 32, true}, Role::mlp), "");
  EXPECT_NE(refused("vllm", 32, 36, {4, 36, true}, Role::mlp).find("row's codes"), std::string::npos);
  EXPECT_NE(refused("vllm", 36, 64, {8, 32, false}, Role::expert).find("multiples of 8"), std::string::npos);
  EXPECT_EQ(refused("vllm", 36, 64, {8, 32, false}, Role::mlp), "");
  try {
    refused("vlm", 32, 64, {4, 32, true}, Role::mlp);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("did you mean \"vllm\""), std::string::npos) << e.message();
  }
}

TEST(Targets, ExpertsOfABlockNeedOneScheme) {
  std::vector<LayerChoice> layers;
  for (int e = 0; e < 3; ++e) {
    for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
      auto site = std::make_shared<LinearSite>();
      site->role = Role::expert;
      site->block = 1;
      layers.push_back({site, "model.layers.1.mlp.experts." + std::to_string(e) + "." + name, true, "", {4, 32, true}});
    }
  }
  EXPECT_EQ(fused_sets(layers).size(), 1u);
  EXPECT_TRUE(split_fusions(layers).empty());
  layers[4].spec.bits = 8;
  ASSERT_EQ(split_fusions(layers).size(), 1u);
  EXPECT_NE(split_fusions(layers)[0].find("the other 8 expert layers"), std::string::npos) << split_fusions(layers)[0];
}

}  // namespace
}  // namespace statera
