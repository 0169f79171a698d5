// Which layers are chosen, by role and pattern, and how quantization_config names the rest.
#include "quant/select.h"

#include <gtest/gtest.h>

#include <set>

#include "quant/output_plan.h"
#include "quant/test_model.h"

namespace statera {
namespace {

class Select : public ::testing::Test {
 protected:
  Select() {
    write_toy(dir_, toy_tensors(at::kBFloat16));
    toy_.emplace(dir_);
  }
  std::set<std::string> chosen(const SelectOptions& o, const QSpec& spec = {4, 32, true}) {
    std::set<std::string> out;
    for (const auto& l : select_layers(*toy_->model, toy_->source, o, spec)) {
      if (l.quantized) out.insert(l.disk_path);
    }
    return out;
  }
  std::string message(const SelectOptions& o, const QSpec& spec = {4, 32, true}) {
    try {
      chosen(o, spec);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      return e.message();
    }
    return "";
  }
  TempDir dir_;
  std::optional<Toy> toy_;
};

TEST_F(Select, TakesAttentionAndMlpOfTheLanguageStackByDefault) {
  const auto names = chosen({});
  EXPECT_EQ(names.size(), 3u * 7);
  for (const char* kept : {"lm_head", "visual.blocks.0.qkv", "visual.merger.fc", "visual.patch_embed", "model.layers.0.mlp.gate"})
    EXPECT_FALSE(names.count(kept)) << kept;
}

TEST_F(Select, OtherPartsOnRequestButNeverConvolutionsOrRouters) {
  SelectOptions o;
  o.vision = o.projector = o.head = true;
  const auto names = chosen(o);
  EXPECT_EQ(names.size(), 3u * 7 + 3);
  for (const char* taken : {"lm_head", "visual.blocks.0.qkv", "visual.merger.fc"}) EXPECT_TRUE(names.count(taken)) << taken;
  EXPECT_FALSE(names.count("visual.patch_embed"));
  EXPECT_FALSE(names.count("model.layers.0.mlp.gate"));
}

TEST_F(Select, PatternsFindNamesInTheFiles) {
  SelectOptions o;
  o.ignore = {"layers\\.[01]\\.", "down_proj$"};
  EXPECT_EQ(chosen(o).size(), 6u);
  o.ignore = {"no_such_layer"};
  EXPECT_NE(message(o).find("no_such_layer"), std::string::npos);
  o.ignore = {"(unclosed"};
  EXPECT_NE(message(o).find("not a regular expression"), std::string::npos);
  o.ignore = {".*"};
  EXPECT_NE(message(o).find("nothing to quantize"), std::string::npos);
}

TEST_F(Select, WidthThatDoesNotDivideIsNamedUnlessIgnored) {
  const QSpec spec{4, 64, true};
  const std::string text = message({}, spec);
  EXPECT_NE(text.find("down_proj"), std::string::npos) << text;
  EXPECT_NE(text.find("--w-group -1"), std::string::npos) << text;
  SelectOptions o;
  o.ignore = {"down_proj"};
  EXPECT_EQ(chosen(o, spec).size(), 18u);
}

TEST_F(Select, SplitFusionsAreReported) {
  SelectOptions o;
  o.ignore = {"layers\\.1\\.self_attn\\.k_proj"};
  const auto lines = split_fusions(select_layers(*toy_->model, toy_->source, o, {4, 32, true}));
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].find("model.layers.1.self_attn.q_proj/k_proj/v_proj"), 0u) << lines[0];
}

TEST_F(Select, ConfigNamesWhatStaysFloating) {
  PlanOptions p;
  p.weights = {4, 32, true};
  p.select.ignore = {"layers\\.2\\.mlp\\.down_proj"};
  const OutputPlan plan = plan_output(*toy_->model, toy_->source, p);
  std::set<std::string> ignored;
  for (const Json& name : plan.config.at("quantization_config").at("ignore").as_array()) ignored.insert(name.as_string());
  EXPECT_EQ(ignored, (std::set<std::string>{"lm_head", "re:.*visual.*", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate",
                                            "model.layers.2.mlp.gate", "model.layers.2.mlp.down_proj"}));
  EXPECT_EQ(plan.config.at("hidden_size").as_int(), 64);
}

TEST_F(Select, PartlyQuantizedTowerIsNamedLayerByLayer) {
  PlanOptions p;
  p.weights = {4, 32, true};
  p.select.vision = true;
  const OutputPlan plan = plan_output(*toy_->model, toy_->source, p);
  std::set<std::string> ignored;
  for (const Json& name : plan.config.at("quantization_config").at("ignore").as_array()) ignored.insert(name.as_string());
  EXPECT_TRUE(ignored.count("visual.merger.fc"));
  EXPECT_TRUE(ignored.count("model.visual.merger.fc"));  // the name in memory differs
  EXPECT_FALSE(ignored.count("re:.*visual.*"));
}

}  // namespace
}  // namespace statera
