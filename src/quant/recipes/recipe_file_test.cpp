// Recipe files: what they become, what is refused and how it is said. The published MBQ files are in import_mbq_test.cpp.
#include "quant/recipes/recipe_file.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "base/file.h"
#include "ckpt/test_files.h"
#include "quant/recipe.h"
#include "quant/recipes/overrides.h"
#include "quant/recipes/yaml.h"

namespace statera {
namespace {

const std::vector<std::string> kFlags = {"w_bits",  "w_group",       "a_bits",     "data",         "image_folder", "n_samples",   "max_seq_len",
                                         "method",  "gptq_damp",     "gptq_clip",  "gptq_act_order", "mbq_reweight", "mbq_tie_heads", "mbq_loss", "smooth_alpha",
                                         "override", "target_bits",  "seed",       "quantize_vision", "ignore", "parity"};

std::map<std::string, Json> options(const std::string& yaml) {
  std::map<std::string, Json> out;
  for (const RecipeOption& o : recipe_options(parse_yaml(yaml, "r.yaml"), "r.yaml", kFlags).options) out[o.name] = o.value;
  return out;
}

std::string refusal(const std::string& yaml) {
  try {
    options(yaml);
  } catch (const Error& e) {
    return e.message();
  }
  return "accepted";
}

TEST(Recipe, EverySectionBecomesOptions) {
  const auto o = options(R"(
steps:
  - smoothquant: {alpha: 0.7}
  - gptq: {damp: 0.02, clip: true}
weights: {bits: 3, group: 64, symmetric: false}
activations: {bits: 16}
data: {data: [a.jsonl, b.txt], n_samples: 32}
select: {vision: true, ignore: ['layers\.0\.']}
overrides:
  - {pattern: down_proj, bits: 8}
  - {pattern: 'layers\.1\.', skip: true}
target_bits: 4.5
seed: 7
)");
  EXPECT_EQ(o.at("method"), Json("smoothquant+gptq"));
  EXPECT_EQ(o.at("smooth_alpha"), Json(0.7));
  EXPECT_EQ(o.at("gptq_damp"), Json(0.02));
  EXPECT_EQ(o.at("gptq_clip"), Json(true));
  EXPECT_EQ(o.at("w_bits"), Json(3));
  EXPECT_EQ(o.at("w_group"), Json(64));
  EXPECT_EQ(o.at("symmetric"), Json(false));
  EXPECT_EQ(o.at("a_bits"), Json(16));
  EXPECT_EQ(o.at("data").as_array().size(), 2u);
  EXPECT_EQ(o.at("n_samples"), Json(32));
  EXPECT_EQ(o.at("quantize_vision"), Json(true));
  EXPECT_EQ(o.at("override").as_array().at(0), Json("bits=8:down_proj"));
  EXPECT_EQ(o.at("override").as_array().at(1), Json("skip:layers\\.1\\."));
  EXPECT_EQ(o.at("target_bits"), Json(4.5));
  EXPECT_EQ(o.at("seed"), Json(7));
  EXPECT_EQ(o.size(), 15u);
}

TEST(Recipe, ParityMayStandAtTheTopAndUnderDataAndBothCount) {
  EXPECT_EQ(options("{steps: [rtn], parity: own-ranges}").at("parity"), Json("own-ranges"));
  EXPECT_EQ(options("{parity: own-ranges, data: {parity: [mbq-data]}}").at("parity"), parse_yaml("[own-ranges, mbq-data]", "e"));
}

TEST(Recipe, HeadsAreTiedByAKeyOfTheStep) { EXPECT_EQ(options("steps: [mbq: {tie_heads: true}]").at("mbq_tie_heads"), Json(true)); }

TEST(Recipe, AStepMayBeANameOnly) { EXPECT_EQ(options("steps: [awq, gptq]").at("method"), Json("awq+gptq")); }

TEST(Recipe, UnknownKeysNameFilePathAndTheNearestKey) {
  EXPECT_EQ(refusal("step: [rtn]").find("r.yaml: unknown key \"step\"; did you mean \"steps\"?"), 0u) << refusal("step: [rtn]");
  EXPECT_EQ(refusal("weights: {bit: 4}").find("r.yaml: weights: unknown key \"bit\"; did you mean \"bits\"?"), 0u);
  EXPECT_EQ(refusal("steps: [awq, gptq: {dampp: 1}]").find("r.yaml: steps[1].gptq: unknown key \"dampp\"; did you mean \"damp\"?"), 0u)
      << refusal("steps: [awq, gptq: {dampp: 1}]");
  EXPECT_EQ(refusal("steps: [gptk]").find("r.yaml: steps[0]: unknown method \"gptk\"; did you mean \"gptq\"?"), 0u);
  EXPECT_EQ(refusal("overrides: [{pattern: a, bitz: 3}]").find("r.yaml: overrides[0]: unknown key \"bitz\"; did you mean \"bits\"?"), 0u);
  EXPECT_EQ(refusal("data: {n_sample: 3}").find("r.yaml: data: unknown key \"n_sample\"; did you mean \"n_samples\"?"), 0u);
  EXPECT_EQ(refusal("steps: [rtn: {damp: 1}]").find("r.yaml: steps[0].rtn: unknown key \"damp\""), 0u);
}

TEST(Recipe, WhatMakesNoSenseIsRefused) {
  EXPECT_NE(refusal("steps: [gptq, rtn]").find("both gptq and rtn round weights"), std::string::npos) << refusal("steps: [gptq, rtn]");
  EXPECT_NE(refusal("steps: [gptq, awq]").find("awq comes after gptq"), std::string::npos);
  EXPECT_NE(refusal("steps: [awq, awq]").find("twice"), std::string::npos);
  EXPECT_NE(refusal("steps: []").find("no step"), std::string::npos);
  EXPECT_NE(refusal("steps: [{awq: {}, gptq: {}}]").find("one method a step"), std::string::npos);
  EXPECT_NE(refusal("- 1").find("no recipe"), std::string::npos);
  EXPECT_NE(refusal("weights: 4").find("r.yaml: weights: expected an object"), std::string::npos) << refusal("weights: 4");
  EXPECT_NE(refusal("overrides: [{bits: 4}]").find("no pattern"), std::string::npos);
  EXPECT_NE(refusal("overrides: [{pattern: a}]").find("says nothing"), std::string::npos);
  EXPECT_NE(refusal("overrides: [{pattern: a, bits: 9}]").find("between 2 and 8"), std::string::npos);
  EXPECT_NE(refusal("overrides: [{pattern: a, skip: true, bits: 3}]").find("skipped"), std::string::npos);
}

TEST(Recipe, MethodsEndInOneThatRounds) {
  EXPECT_EQ(recipe_methods("rtn"), (std::vector<std::string>{"rtn"}));
  EXPECT_EQ(recipe_methods("awq"), (std::vector<std::string>{"awq", "rtn"}));
  EXPECT_EQ(recipe_methods("smoothquant+awq+gptq"), (std::vector<std::string>{"smoothquant", "awq", "gptq"}));
  EXPECT_THROW(recipe_methods(""), Error);
  EXPECT_THROW(recipe_methods("awq+"), Error);
}

TEST(Override, TextFormsComeBack) {
  for (const char* text : {"bits=8:down_proj", "bits=3,group=-1,asym:layers\\.[0-9]\\.", "sym:a:b", "skip:x,y=z", "group=64:q"})
    EXPECT_EQ(parse_override(text).text(), text);
  const Override o = parse_override(" bits = 2 , asym:p");
  EXPECT_EQ(o, (Override{"p", 2, {}, false, false}));
  EXPECT_EQ(override_from_json(o.to_json(), "x"), o);
  for (const char* bad : {"down_proj", "bits=8:", ":a", "bits=8.5:a", "bits=9:a", "group=0:a", "bitz=4:a", "skip,bits=4:a", "skip=1:a"})
    EXPECT_THROW(parse_override(bad), Error) << bad;
}

TEST(Yaml, ScalarsHaveTheTypesOfYaml12) {
  const Json j = parse_yaml("{a: 1, b: 1.5, c: true, d: False, e: null, f: ~, g: yes, h: '1', i: \"true\", j: 1e3, k: -7, l: 0x10, m: 1.2.3, n: }", "t");
  EXPECT_EQ(j.at("a"), Json(1));
  EXPECT_EQ(j.at("b"), Json(1.5));
  EXPECT_EQ(j.at("c"), Json(true));
  EXPECT_EQ(j.at("d"), Json(false));
  EXPECT_TRUE(j.find("e")->is_null());
  EXPECT_TRUE(j.find("f")->is_null());
  EXPECT_EQ(j.at("g"), Json("yes"));
  EXPECT_EQ(j.at("h"), Json("1"));
  EXPECT_EQ(j.at("i"), Json("true"));
  EXPECT_EQ(j.at("j"), Json(1000.0));
  EXPECT_EQ(j.at("k"), Json(-7));
  EXPECT_EQ(j.at("l"), Json("0x10"));
  EXPECT_EQ(j.at("m"), Json("1.2.3"));
  EXPECT_TRUE(j.find("n")->is_null());
}

TEST(Yaml, BrokenTextIsOneLineWithItsPlace) {
  auto message = [](const std::string& text) {
    try {
      parse_yaml(text, "t.yaml");
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_file);
      return e.message();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message("a: [1, 2").find("t.yaml: line "), 0u) << message("a: [1, 2");
  EXPECT_NE(message("a: 1\nb: 2\na: 3").find("t.yaml: line 3: key \"a\" stands here twice"), std::string::npos) << message("a: 1\nb: 2\na: 3");
  EXPECT_NE(message("a: 1\n---\nb: 2").find("several documents"), std::string::npos);
  EXPECT_NE(message("a: !!binary x").find("tag"), std::string::npos);
  EXPECT_NE(message("? [1]\n: 2").find("no text"), std::string::npos);
  // Aliases of aliases: few bytes, billions of values.
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string p = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + p;
    for (int k = 1; k < 10; ++k) bomb += "," + p;
    bomb += "]\n";
  }
  EXPECT_NE(message(bomb).find("more than 100000 values"), std::string::npos);
  EXPECT_NE(message(std::string(200, '[') + std::string(200, ']')).find("deep"), std::string::npos);
  EXPECT_TRUE(parse_yaml("", "t").is_null());
}

TEST(Yaml, AFileThatIsNotThereIsNotFound) {
  TempDir dir;
  try {
    read_recipe(dir / "none.yaml", kFlags);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::not_found);
  }
  write_text(dir / "one.yaml", "steps: [rtn]\n");
  EXPECT_EQ(read_recipe(dir / "one.yaml", kFlags).options.size(), 1u);
  EXPECT_THROW(read_recipe((dir / "one.yaml") + "#2", kFlags), Error);
}

}  // namespace
}  // namespace statera
