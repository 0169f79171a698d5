// quantization_config of compressed-tensors: what is read from others and what is written.
#include "ckpt/ct_config.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ckpt/name_pattern.h"

namespace statera {
namespace {

Json config(const std::string& groups, const std::string& more = "") {
  return Json::parse(R"({"quant_method": "compressed-tensors", "config_groups": )" + groups + more + "}", "config");
}
Json one(const std::string& weights, const std::string& input = "null", const std::string& more = "") {
  return config(R"({"group_0": {"targets": ["Linear"], "weights": )" + weights + R"(, "input_activations": )" + input + "}}", more);
}
std::string why(const Json& j) { return parse_ct_config(j).scheme_of("m")->unsupported; }

TEST(NamePattern, PatternsAreAnchoredAtTheStartOnly) {
  EXPECT_TRUE(name_matches("re:.*visual.*", "model.visual.blocks.0.attn.qkv"));
  EXPECT_TRUE(name_matches("re:model\\.visual", "model.visual.blocks.0.attn.qkv"));
  EXPECT_FALSE(name_matches("re:visual", "model.visual.blocks.0.attn.qkv"));
  EXPECT_TRUE(name_matches("re:.*mlp.gate$", "model.layers.3.mlp.gate"));
  EXPECT_FALSE(name_matches("re:.*mlp.gate$", "model.layers.3.mlp.gate_proj"));
  EXPECT_TRUE(name_matches("lm_head", "lm_head"));
  EXPECT_FALSE(name_matches("lm_head", "model.lm_head"));
}

TEST(NamePattern, WhatCannotBeUnderstoodIsUnsupported) {
  for (const char* pattern : {"re:(", "re:a{2,1}", "re:(a)\\1", "re:[z-a]"}) EXPECT_THROW(name_matches(pattern, "aa"), Error) << pattern;
  EXPECT_THROW(name_matches("re:" + std::string(5000, 'a'), "a"), Error);
}

TEST(NamePattern, NoPatternTakesExponentialTime) { EXPECT_FALSE(name_matches("re:(a*)*(a*)*(a|aa)*b$", std::string(200, 'a'))); }

TEST(CtConfig, StrategyIsInferredFromTheGroupSize) {
  auto spec = [](const std::string& w) { return parse_ct_config(one(w)).scheme_of("m")->spec; };
  EXPECT_EQ(spec(R"({"num_bits": 4, "group_size": 64})"), (QSpec{4, 64, true}));
  EXPECT_EQ(spec(R"({"num_bits": 8, "group_size": -1, "symmetric": false})"), (QSpec{8, -1, false}));
  EXPECT_EQ(spec(R"({"num_bits": 3, "group_size": null, "actorder": "static"})"), (QSpec{3, -1, true}));
}

TEST(CtConfig, ExactNamesComeBeforePatternsAndPatternsBeforeClasses) {
  CtConfig c = parse_ct_config(config(R"({
    "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}},
    "group_1": {"targets": ["re:.*down_proj"], "weights": {"num_bits": 5, "group_size": 32}},
    "group_2": {"targets": ["layers.1.down_proj"], "weights": {"num_bits": 6, "group_size": 32}}})"));
  EXPECT_EQ(c.scheme_of("layers.0.up_proj")->spec.bits, 4);
  EXPECT_EQ(c.scheme_of("layers.0.down_proj")->spec.bits, 5);
  EXPECT_EQ(c.scheme_of("layers.1.down_proj")->spec.bits, 6);
  EXPECT_EQ(parse_ct_config(config(R"({"g": {"targets": ["x"], "weights": {"num_bits": 4}}})")).scheme_of("y"), nullptr);
}

TEST(CtConfig, TheVersionTellsThePacking) {
  auto packing = [](const std::string& version) {
    return parse_ct_config(one("{}", "null", ", \"version\": \"" + version + "\"")).packing;
  };
  EXPECT_EQ(packing("0.9.4"), Packing::sparse);
  EXPECT_EQ(packing("0.17.1"), Packing::sparse);
  EXPECT_EQ(packing("0.18.0"), Packing::dense);
  EXPECT_EQ(packing("0.20.0"), Packing::dense);
  EXPECT_EQ(packing("1.2.0"), Packing::dense);
}

TEST(CtConfig, WhatCannotBeComputedSaysWhat) {
  EXPECT_EQ(why(one(R"({"num_bits": 8, "type": "float"})")), "weights of type float");
  EXPECT_EQ(why(one(R"({"num_bits": 1, "group_size": 32})")), "1-bit weights");
  EXPECT_EQ(why(one(R"({"num_bits": 4, "strategy": "block"})")), "weight strategy block");
  EXPECT_EQ(why(one(R"({"num_bits": 4, "group_size": 32, "actorder": "group"})")), "actorder group");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", R"({"num_bits": 8, "dynamic": false, "strategy": "token"})")), "static activation strategy token");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", R"({"num_bits": 8, "dynamic": true, "strategy": "tensor"})")), "dynamic activation strategy tensor");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", R"({"num_bits": 8, "dynamic": "local", "strategy": "tensor"})")), "activation scales that are partly dynamic");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", R"({"num_bits": 8, "symmetric": false})")), "asymmetric activations");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", R"({"num_bits": 8, "dynamic": false})")), "");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", R"({"num_bits": 8, "type": "float", "dynamic": true})")), "8-bit float activations");
  EXPECT_EQ(why(one(R"({"num_bits": 4, "group_size": 16})", "null", R"(, "format": "nvfp4-pack-quantized")")),
            "format nvfp4-pack-quantized");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", "null", R"(, "format": "float-quantized")")), "format float-quantized");
  EXPECT_EQ(why(one(R"({"num_bits": 8})", R"({"num_bits": 8, "dynamic": true, "strategy": "token"})")), "");
}

TEST(CtConfig, RotationsAppliedWhileRunningAreRefusedAndMergedOnesAreNot) {
  auto with = [](const char* location) {
    return one("{}", "null",
               std::string(R"(, "transform_config": {"config_groups": {"R4": {"apply": [{"location": ")") + location + R"("}]}}})");
  };
  EXPECT_THROW(parse_ct_config(with("input")), Error);
  EXPECT_NO_THROW(parse_ct_config(with("weight_output")));
}

TEST(CtConfig, EqualLayersAreOneGroupWithTheKeysOfThePackage) {
  std::vector<StoredLinear> linears = {{"a.q_proj", 8, 64, {4, 32, true}, {}, at::kBFloat16},
                                       {"a.k_proj", 8, 64, {4, 32, true}, {}, at::kBFloat16}};
  Json j = make_ct_config(linears, {"lm_head", "model.visual.merger.mlp.0"});
  Json expected =
      Json::parse(R"({"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": true,
      "group_size": 32, "strategy": "group", "dynamic": false}, "input_activations": null, "output_activations": null, "format": "pack-quantized"}},
    "quant_method": "compressed-tensors", "kv_cache_scheme": null, "format": "pack-quantized", "quantization_status": "compressed",
    "global_compression_ratio": null, "ignore": ["lm_head", "model.visual.merger.mlp.0"], "sparsity_config": {}, "transform_config": {},
    "version": "0.20.0"})",
                  "expected");
  EXPECT_EQ(j.dump(1), expected.dump(1));
}

TEST(CtConfig, MixedLayersReadBackAsTheyWereWritten) {
  std::vector<StoredLinear> linears = {{"a", 8, 64, {4, 32, false}, {}, at::kFloat},
                                       {"b", 8, 64, {8, -1, true}, ActQuant{8}, at::kFloat},
                                       {"c", 8, 64, {4, 32, false}, {}, at::kFloat},
                                       {"d", 8, 64, {4, 32, true}, ActQuant{8}, at::kFloat},
                                       {"e", 8, 64, {8, -1, true}, ActQuant{.bits = 8, .is_static = true}, at::kFloat},
                                       {"f", 8, 64, {8, -1, true}, ActQuant{.bits = 8, .is_static = true}, at::kFloat}};
  Json j = make_ct_config(linears, {});
  EXPECT_EQ(j.at("format").as_string(), "mixed-precision");
  CtConfig c = parse_ct_config(j);
  ASSERT_EQ(c.schemes.size(), 4u);
  for (const StoredLinear& l : linears) {
    EXPECT_EQ(c.scheme_of(l.path)->spec, l.spec) << l.path;
    EXPECT_EQ(c.scheme_of(l.path)->act, l.act) << l.path;
    EXPECT_EQ(c.scheme_of(l.path)->unsupported, "") << l.path;
  }
  EXPECT_EQ(c.scheme_of("b")->format, "int-quantized");
  EXPECT_EQ(c.scheme_of("d")->format, "pack-quantized");
}

TEST(CtConfig, MalformedConfigsAreErrors) {
  for (const char* groups : {"null", "7", R"({"g": {}})", R"({"g": {"targets": "Linear"}})", R"({"g": {"targets": [1]}})",
                             R"({"g": {"targets": ["Linear"], "weights": {"num_bits": "4"}}})",
                             R"({"g": {"targets": ["Linear"], "weights": {"strategy": "group"}}})"}) {
    EXPECT_THROW(parse_ct_config(config(groups)), Error) << groups;
  }
}

}  // namespace
}  // namespace statera
