// Opening checkpoint directories.
#include "ckpt/checkpoint.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "ckpt/shards.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

std::string failure(const std::string& dir, ErrorKind kind) {
  try {
    Checkpoint::open(dir);
  } catch (const Error& e) {
    EXPECT_EQ(to_string(e.kind()), to_string(kind)) << e.message();
    EXPECT_EQ(e.message().find('\n'), std::string::npos);
    return e.message();
  }
  ADD_FAILURE() << "opened";
  return "";
}

// Two shards of one tensor each.
void write_sharded(const std::string& dir) {
  write_text(dir + "/config.json", R"({"model_type": "toy"})");
  ShardPlan plan = plan_shards({{"a.weight", at::kFloat, {4}}, {"b.weight", at::kFloat, {4}}}, 16);
  for (const auto& file : plan.files) {
    ShardFile shard(dir, file);
    for (const auto& t : file.plan.tensors) shard.write(t.name, t.name == "a.weight" ? at::arange(4).to(at::kFloat) : at::ones({4}));
  }
  write_text(dir + "/model.safetensors.index.json", plan.index_json());
}

TEST(Checkpoint, ASingleFileIsReadWithItsConfigs) {
  TempDir dir;
  write_text(dir / "config.json", R"({"model_type": "toy", "quantization_config": {"quant_method": "x"}})");
  write_text(dir / "generation_config.json", R"({"eos_token_id": [1, 2]})");
  write_safetensors(dir / "model.safetensors", {{"w", at::arange(6).to(at::kBFloat16).reshape({2, 3})}});
  Checkpoint c = Checkpoint::open(std::string(dir) + "/");
  EXPECT_EQ(c.directory(), std::string(dir));
  EXPECT_EQ(c.config().at("model_type").as_string(), "toy");
  EXPECT_EQ(c.generation_config().at("eos_token_id").as_array().size(), 2u);
  EXPECT_EQ(c.quantization_config()->at("quant_method").as_string(), "x");
  EXPECT_EQ(c.names(), std::vector<std::string>{"w"});
  EXPECT_EQ(c.bytes(), 12u);
  EXPECT_FALSE(c.used("w"));
  EXPECT_TRUE(at::equal(c.tensor("w", {2, 3}), at::arange(6).to(at::kBFloat16).reshape({2, 3})));
  EXPECT_TRUE(c.used("w"));
}

TEST(Checkpoint, ShardsAreReadThroughTheIndex) {
  TempDir dir;
  write_sharded(dir);
  Checkpoint c = Checkpoint::open(dir);
  EXPECT_EQ(c.files().size(), 2u);
  EXPECT_TRUE(at::equal(c.tensor("a.weight"), at::arange(4).to(at::kFloat)));
  EXPECT_TRUE(at::equal(c.tensor("b.weight"), at::ones({4})));
  EXPECT_NE(c.place("b.weight").find("model-00002-of-00002.safetensors: tensor b.weight"), std::string::npos);
}

TEST(Checkpoint, ReleasedPagesAreReadAgain) {
  TempDir dir;
  write_text(dir / "config.json", "{}");
  write_safetensors(dir / "model.safetensors", {{"w", at::ones({1 << 20})}});
  Checkpoint c = Checkpoint::open(dir);
  at::Tensor w = c.tensor("w");
  EXPECT_EQ(w.sum().item().toDouble(), 1 << 20);
  c.release("w");
  EXPECT_EQ(w.sum().item().toDouble(), 1 << 20);
}

TEST(Checkpoint, AMissingTensorOrAnotherShapeNamesFileAndTensor) {
  TempDir dir;
  write_sharded(dir);
  Checkpoint c = Checkpoint::open(dir);
  try {
    c.tensor("a.weight", {2, 2});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), dir / "model-00001-of-00002.safetensors: tensor a.weight: shape [4], expected [2, 2]");
  }
  try {
    c.tensor("c.weight");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), std::string(dir) + ": tensor c.weight: missing");
  }
}

TEST(Checkpoint, AMissingShardIsNamed) {
  TempDir dir;
  write_sharded(dir);
  std::filesystem::remove(dir / "model-00002-of-00002.safetensors");
  EXPECT_NE(failure(dir, ErrorKind::bad_file).find("1 of 2 shards missing: model-00002-of-00002.safetensors"), std::string::npos);
}

TEST(Checkpoint, ATensorTheShardLacksIsNamed) {
  TempDir dir;
  write_sharded(dir);
  write_text(dir / "model.safetensors.index.json",
             R"({"weight_map": {"a.weight": "model-00001-of-00002.safetensors", "c.weight": "model-00001-of-00002.safetensors"}})");
  EXPECT_NE(failure(dir, ErrorKind::bad_file).find("tensor c.weight: listed"), std::string::npos);
}

TEST(Checkpoint, ATensorListedUnderTheWrongShardIsNamed) {
  TempDir dir;
  write_sharded(dir);
  write_text(dir / "model.safetensors.index.json",
             R"({"weight_map": {"b.weight": "model-00001-of-00002.safetensors", "a.weight": "model-00002-of-00002.safetensors"}})");
  EXPECT_NE(failure(dir, ErrorKind::bad_file).find("but not in this shard"), std::string::npos);
}

TEST(Checkpoint, ATensorInTwoShardsIsRefused) {
  TempDir dir;
  write_sharded(dir);
  write_safetensors(dir / "model-00002-of-00002.safetensors", {{"a.weight", at::ones({4})}, {"b.weight", at::ones({4})}});
  EXPECT_NE(failure(dir, ErrorKind::bad_file).find("tensor a.weight: also in"), std::string::npos);
}

TEST(Checkpoint, ShardNamesThatLeaveTheFolderAreRefused) {
  for (const char* name : {"/etc/model.safetensors", "../x.safetensors", "a/../../x.safetensors", "..", ""}) {
    TempDir dir;
    write_sharded(dir);
    Json map = Json::object();
    map.set("a.weight", name);
    Json index = Json::object();
    index.set("weight_map", map);
    write_text(dir / "model.safetensors.index.json", index.dump());
    failure(dir, *name ? ErrorKind::denied : ErrorKind::bad_file);
  }
}

TEST(Checkpoint, PickledWeightsAreUnsupportedAndNeverRead) {
  TempDir dir;
  write_text(dir / "config.json", "{}");
  write_text(dir / "pytorch_model.bin", "\x80\x02}q\0.");
  EXPECT_NE(failure(dir, ErrorKind::unsupported).find("pytorch_model.bin"), std::string::npos);
}

TEST(Checkpoint, WhatIsNoCheckpointSaysWhatIsMissing) {
  TempDir dir;
  EXPECT_NE(failure(dir / "nowhere", ErrorKind::not_found).find("no such checkpoint directory"), std::string::npos);
  EXPECT_NE(failure(dir, ErrorKind::not_found).find("no config.json"), std::string::npos);
  write_text(dir / "config.json", "[1]");
  failure(dir, ErrorKind::bad_file);
  write_text(dir / "config.json", "{}");
  EXPECT_NE(failure(dir, ErrorKind::not_found).find("no weights"), std::string::npos);
  EXPECT_NE(failure(dir / "config.json", ErrorKind::not_found).find("a file"), std::string::npos);
}

}  // namespace
}  // namespace statera
