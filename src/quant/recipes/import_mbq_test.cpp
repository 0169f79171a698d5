// YAML files as MBQ publishes them: same keys, same literal quotes.
#include "quant/recipes/import_mbq.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/recipes/yaml.h"

namespace statera {
namespace {

// The keys of the published search files, with the values of the one for InternVL2-8B.
const char* kSearch = R"(
model: internvl2
model_args: pretrained="OpenGVLab/InternVL2-8B"
calib_data: coco
n_samples: 128
data_path: "your/data/path/sharegpt4v.json"
image_folder: "your/image/folder"
few_shot_format: False
interleave_format: False
text_data_path: ""
method: mbq
run_process: True
w_bit: 3
w_group: 128
distort: False
reweight: True
loss_mode: mae
scale_path: "scale_cache/mbq/internvl2_8b_w3g128.pt"
)";

MbqImport import(const std::string& yaml, int job = 0) { return import_mbq(parse_yaml(yaml, "f.yaml"), "f.yaml", job); }

std::string refusal(const std::string& yaml, int job = 0) {
  try {
    import(yaml, job);
  } catch (const Error& e) {
    return e.message();
  }
  return "accepted";
}

bool notes(const MbqImport& i, const std::string& text) {
  for (const std::string& n : i.notes) {
    if (n.find(text) != n.npos) return true;
  }
  return false;
}

TEST(ImportMbq, WeightOnlySearchFilesMeanAsymmetricGroups) {
  ASSERT_TRUE(is_mbq_file(parse_yaml(kSearch, "f")));
  const MbqImport i = import(kSearch);
  EXPECT_EQ(i.recipe.at("weights"), parse_yaml("{bits: 3, group: 128, symmetric: false}", "e"));
  EXPECT_EQ(i.recipe.at("activations"), parse_yaml("{bits: 16}", "e"));
  EXPECT_EQ(i.recipe.at("steps"), parse_yaml("[mbq: {reweight: true, loss: mae, norm: common}]", "e"));
  EXPECT_EQ(i.recipe.at("data"), parse_yaml("{n_samples: 128, data: your/data/path/sharegpt4v.json, parity: mbq-data, image_folder: your/image/folder}", "e"));
  EXPECT_EQ(i.recipe.at("propagate"), Json("original"));
  EXPECT_EQ(i.recipe.at("seed"), Json(42));
  EXPECT_TRUE(notes(i, "OpenGVLab/InternVL2-8B;"));  // without its quotes
  EXPECT_TRUE(notes(i, "scale_path"));
}

TEST(ImportMbq, ActivationBitsMeanSymmetricRows) {
  std::string yaml = kSearch;
  yaml.replace(yaml.find("w_bit: 3\nw_group: 128"), 21, "w_bit: 4\na_bit: 8");
  const MbqImport i = import(yaml);
  EXPECT_EQ(i.recipe.at("weights"), parse_yaml("{bits: 4, group: -1, symmetric: true}", "e"));
  EXPECT_EQ(i.recipe.at("activations"), parse_yaml("{bits: 8}", "e"));
}

TEST(ImportMbq, DistortIsAnOptionOfTheStepAndTakesRoundedBlocksOn) {
  std::string yaml = kSearch;
  yaml.replace(yaml.find("distort: False"), 14, "distort: True");
  const MbqImport i = import(yaml);
  EXPECT_EQ(i.recipe.at("steps"), parse_yaml("[mbq: {reweight: true, loss: mae, norm: common, distort: true}]", "e"));
  EXPECT_EQ(i.recipe.at("propagate"), Json("quantized"));
  EXPECT_EQ(import("{method: awq, distort: true, data_path: p}").recipe.at("propagate"), Json("original"));  // which has no part in it
}

TEST(ImportMbq, EvaluationFilesAreReadAndTheirKeysListed) {
  const MbqImport i = import(R"(
model: qwen2_vl
model_args: pretrained='Qwen/Qwen2-VL-7B-Instruct',device_map=auto
tasks: mmmu_val
batch_size: 1
device: cuda
log_samples: True
log_samples_suffix: mmmu_val
output_path: out
method: mbq
run_process: False
pseudo_quant: True
w_bit: 3
w_group: 128
scale_path: x.pt
)");
  EXPECT_TRUE(notes(i, "without meaning here: tasks, batch_size, device, log_samples, log_samples_suffix, output_path"));
  EXPECT_TRUE(notes(i, "Qwen/Qwen2-VL-7B-Instruct;"));
  EXPECT_EQ(i.recipe.at("steps").as_array()[0].at("mbq").at("reweight"), Json(false));  // a flag that is left out
}

TEST(ImportMbq, OtherMethodsAndTheDefaultsOfTheScripts) {
  const MbqImport smooth = import("{method: smoothquant, alpha: 0.7, w_bit: 8, a_bit: 8, data_path: p}");
  EXPECT_EQ(smooth.recipe.at("steps"), parse_yaml("[smoothquant: {alpha: 0.7}]", "e"));
  const MbqImport rtn = import("{method: rtn, w_bit: 4, calib_data: null}");
  EXPECT_EQ(rtn.recipe.at("weights"), parse_yaml("{bits: 4, group: 128, symmetric: false}", "e"));
  EXPECT_FALSE(rtn.recipe.has("data"));
  const MbqImport awq = import("{w_group: 0}");
  EXPECT_EQ(awq.recipe.at("steps"), parse_yaml("[awq: {}]", "e"));
  EXPECT_EQ(awq.recipe.at("weights"), parse_yaml("{bits: 8, group: -1, symmetric: false}", "e"));
  EXPECT_TRUE(notes(awq, "calib_data pileval without data_path"));
  const MbqImport pile = import("{method: awq, data_path: val.jsonl.zst, interleave_format: true, text_data_path: t.txt, few_shot_format: false}");
  EXPECT_EQ(pile.recipe.at("data"), parse_yaml("{n_samples: 128, data: val.jsonl.zst, parity: mbq-data, max_seq_len: 512, interleave: t.txt}", "e"));
  EXPECT_EQ(import("{method: mbq, loss_mode: mse, data_path: p}").recipe.at("steps").as_array()[0].at("mbq").at("norm"), Json("own"));
}

TEST(ImportMbq, AListOfJobsNeedsAChoice) {
  const std::string two = "- {method: rtn, w_bit: 4}\n- {method: rtn, w_bit: 3}\n";
  EXPECT_NE(refusal(two).find("holds 2 jobs"), std::string::npos) << refusal(two);
  EXPECT_NE(refusal(two).find("f.yaml#1"), std::string::npos);
  EXPECT_EQ(import(two, 2).recipe.at("weights").at("bits"), Json(3));
  EXPECT_NE(refusal(two, 3).find("no #3"), std::string::npos);
  EXPECT_EQ(import("- {method: rtn, w_bit: 5}").recipe.at("weights").at("bits"), Json(5));
}

TEST(ImportMbq, UnknownKeysAndValuesAreErrorsThatNameTheNearest) {
  EXPECT_EQ(refusal("{method: mbq, w_bits: 3}").find("f.yaml: unknown key \"w_bits\"; did you mean \"w_bit\"?"), 0u);
  EXPECT_NE(refusal("{method: mbk}").find("did you mean \"mbq\"?"), std::string::npos);
  EXPECT_NE(refusal("{method: null, w_bit: 3}").find("none is named"), std::string::npos);
  EXPECT_NE(refusal("{method: mbq, loss_mode: huber}").find("mae or mse"), std::string::npos);
  EXPECT_NE(refusal("{method: mbq, interleave_format: true, data_path: p}").find("text_data_path"), std::string::npos);
  EXPECT_NE(refusal("{method: mbq, w_bit: 16}").find("stay as they are"), std::string::npos);
  EXPECT_NE(refusal("{method: mbq, w_bit: three}").find("f.yaml: w_bit"), std::string::npos);
  EXPECT_NE(refusal("{method: mbq, calib_data: null}").find("looks at data"), std::string::npos);
  EXPECT_NE(refusal("{method: mbq, calib_data: cocoa}").find("pileval or coco"), std::string::npos);
}

TEST(ImportMbq, OurOwnRecipesAreNotTakenForTheirs) {
  EXPECT_FALSE(is_mbq_file(parse_yaml("{steps: [rtn], weights: {bits: 4}}", "f")));
  EXPECT_FALSE(is_mbq_file(parse_yaml("[]", "f")));
  EXPECT_FALSE(is_mbq_file(parse_yaml("text", "f")));
}

}  // namespace
}  // namespace statera
