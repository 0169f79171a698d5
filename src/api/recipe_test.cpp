// Recipe files under flags, end to end on a tiny checkpoint.
#include "api/recipe.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "ckpt/checkpoint.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

QuantizeOptions with(const std::string& file) {
  QuantizeOptions o;
  o.recipe = file;
  return o;
}

class RecipeUnderFlags : public ::testing::Test {
 protected:
  std::string file(const std::string& yaml) {
    const std::string path = dir_ / "r.yaml";
    write_text(path, yaml);
    return path;
  }
  std::string refusal(QuantizeOptions o) {
    try {
      apply_recipe(o);
    } catch (const Error& e) {
      return e.message();
    }
    return "accepted";
  }
  TempDir dir_;
};

TEST_F(RecipeUnderFlags, TheFileIsTakenAndFlagsCountBeforeIt) {
  const std::string path = file(
      "steps: [smoothquant: {alpha: 0.3}, gptq: {damp: 0.02, act_order: true}]\n"
      "weights: {bits: 3, group: 64, symmetric: false}\ndata: {n_samples: 32}\noverrides: [{pattern: a, bits: 8}]\n");
  QuantizeOptions o = with(path);
  apply_recipe(o);
  EXPECT_EQ(o.method, "smoothquant+gptq");
  EXPECT_EQ(o.smooth_alpha, 0.3);
  EXPECT_EQ(o.gptq_damp, 0.02);
  EXPECT_TRUE(o.gptq_act_order);
  EXPECT_EQ(o.w_bits, 3);
  EXPECT_EQ(o.w_group, 64);
  EXPECT_TRUE(o.asym);
  EXPECT_EQ(o.n_samples, 32);
  EXPECT_EQ(o.override, std::vector<std::string>{"bits=8:a"});

  QuantizeOptions given = with(path);
  given.w_bits = 5;         // another value than the default
  given.n_samples = 128;    // the default, but named as given
  given.sym = true;
  given.override = {"skip:b"};
  given.given = {"n_samples"};
  apply_recipe(given);
  EXPECT_EQ(given.w_bits, 5);
  EXPECT_EQ(given.n_samples, 128);
  EXPECT_TRUE(given.sym);
  EXPECT_FALSE(given.asym);
  EXPECT_EQ(given.override, (std::vector<std::string>{"bits=8:a", "skip:b"}));
}

TEST_F(RecipeUnderFlags, StaticActivationsAreTaken) {
  QuantizeOptions o = with(file("steps: [rtn]\nactivations: {bits: 8, static: true}\n"));
  apply_recipe(o);
  EXPECT_EQ(o.a_bits, 8);
  EXPECT_TRUE(o.a_static);
}

TEST_F(RecipeUnderFlags, ValuesOfAnotherKindNameTheirPlace) {
  EXPECT_NE(refusal(with(file("weights: {bits: many}"))).find("r.yaml: weights.bits"), std::string::npos) << refusal(with(file("weights: {bits: many}")));
  EXPECT_NE(refusal(with(file("steps: [gptq: {clip: 3}]"))).find("steps[0].gptq.clip"), std::string::npos);
}

TEST_F(RecipeUnderFlags, PublishedFilesOfMbqAreTaken) {
  QuantizeOptions o = with(file("model: qwen2_vl\nmodel_args: pretrained=\"Qwen/Qwen2-VL-7B-Instruct\"\ncalib_data: coco\nn_samples: 128\n"
                                "data_path: \"d.json\"\nimage_folder: \"pictures\"\nfew_shot_format: False\ninterleave_format: False\n"
                                "text_data_path: \"\"\nmethod: smoothquant\nalpha: 0.6\nrun_process: True\nw_bit: 4\na_bit: 8\nscale_path: \"s.pt\"\n"));
  const auto notes = apply_recipe(o);
  EXPECT_EQ(o.method, "smoothquant");
  EXPECT_EQ(o.smooth_alpha, 0.6);
  EXPECT_EQ(o.w_bits, 4);
  EXPECT_EQ(o.a_bits, 8);
  EXPECT_EQ(o.w_group, -1);
  EXPECT_EQ(o.data, std::vector<std::string>{"d.json"});
  EXPECT_EQ(o.image_folder, "pictures");
  EXPECT_EQ(o.propagate, "original");
  EXPECT_EQ(o.seed, 42);
  EXPECT_GE(notes.size(), 3u);
}

TEST_F(RecipeUnderFlags, StepsComposeAndTheResolvedRecipeStandsInTheManifest) {
  QuantizeOptions o = with(file(
      "steps: [awq, gptq: {damp: 0.02, clip: true}]\nweights: {bits: 4, group: 32}\ndata: {n_samples: 2, max_seq_len: 64}\n"
      "overrides: [{pattern: down_proj, bits: 8, group: -1}]\n"));
  o.model = std::string(STATERA_SOURCE_DIR) + "/examples/tiny-qwen3-vl";
  o.out = dir_ / "out";
  o.target = {"vllm", "transformers"};
  const QuantizeReport report = quantize(o);
  const Json manifest = Json::read_file((dir_ / "out") + "/statera.json");
  const Json& recipe = manifest.at("options").at("recipe");
  EXPECT_EQ(recipe, report.recipe);
  EXPECT_EQ(recipe.at("steps").as_array().size(), 2u);
  EXPECT_EQ(recipe.at("steps").as_array()[1].at("gptq").at("damp"), Json(0.02));
  EXPECT_EQ(recipe.at("steps").as_array()[1].at("gptq").at("act_order"), Json(false));
  EXPECT_EQ(recipe.at("overrides").as_array()[0].at("bits"), Json(8));
  EXPECT_EQ(recipe.at("weights").at("symmetric"), Json(true));
  const Checkpoint c = Checkpoint::open(dir_ / "out");
  const Json& groups = c.quantization_config()->at("config_groups");
  EXPECT_EQ(groups.as_object().size(), 2u);

  // The same written as flags gives the same files.
  QuantizeOptions flags;
  flags.model = o.model;
  flags.out = dir_ / "flags";
  flags.method = "awq+gptq";
  flags.gptq_damp = 0.02;
  flags.gptq_clip = true;
  flags.w_group = 32;
  flags.n_samples = 2;
  flags.max_seq_len = 64;
  flags.override = {"bits=8,group=-1:down_proj"};
  quantize(flags);
  for (const char* name : {"model.safetensors", "config.json", "statera.json"})
    EXPECT_EQ(read_file((dir_ / "out") + "/" + name), read_file((dir_ / "flags") + "/" + name)) << name;
}

TEST_F(RecipeUnderFlags, ClippingNarrowsRangesExceptOfQueriesAndKeys) {
  QuantizeOptions o;
  o.model = std::string(STATERA_SOURCE_DIR) + "/examples/tiny-qwen3-vl";
  o.method = "awq";
  o.w_bits = 3;
  o.w_group = 32;
  o.n_samples = 2;
  o.max_seq_len = 64;
  o.out = dir_ / "plain";
  quantize(o);
  o.awq_clip = true;
  o.out = dir_ / "clipped";
  quantize(o);
  const Checkpoint plain = Checkpoint::open(dir_ / "plain"), clipped = Checkpoint::open(dir_ / "clipped");
  // The first block: later ones see other inputs.
  const std::string block = "model.language_model.layers.0.";
  for (const char* kept : {"self_attn.q_proj", "self_attn.k_proj"})
    EXPECT_TRUE(plain.tensor(block + kept + ".weight_scale").equal(clipped.tensor(block + kept + ".weight_scale"))) << kept;
  for (const char* narrowed : {"self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"}) {
    const at::Tensor a = plain.tensor(block + narrowed + ".weight_scale").to(at::kFloat), b = clipped.tensor(block + narrowed + ".weight_scale").to(at::kFloat);
    EXPECT_LE((b - a).max().item<float>(), 0) << narrowed;
    EXPECT_LT((b / a).min().item<float>(), 0.9) << narrowed;
    EXPECT_GT((b / a).min().item<float>(), 0.49) << narrowed;
  }
}

TEST_F(RecipeUnderFlags, BitsByBudgetAreMeasuredOnTheDataWhereThereAreAny) {
  QuantizeOptions o;
  o.model = std::string(STATERA_SOURCE_DIR) + "/examples/tiny-qwen3-vl";
  o.out = dir_ / "out";
  o.method = "smoothquant";
  o.w_group = -1;
  o.n_samples = 2;
  o.max_seq_len = 64;
  o.target_bits = 6;
  const QuantizeReport report = quantize(o);
  EXPECT_LE(report.bits_per_weight(), 6.0);
  EXPECT_EQ(report.bits.at("weighted_by_data"), Json(true));
  EXPECT_FALSE(std::filesystem::exists((dir_ / "out") + ".measuring"));
  o.out = dir_ / "again";
  EXPECT_EQ(quantize(o).bits, report.bits);
  o.method = "rtn";
  o.out = dir_ / "free";
  const QuantizeReport free = quantize(o);
  EXPECT_EQ(free.bits.at("weighted_by_data"), Json(false));
  EXPECT_NE(free.bits.at("sets"), report.bits.at("sets"));
}

}  // namespace
}  // namespace statera
