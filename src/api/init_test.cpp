// Random checkpoints: the same bytes whatever the threads and shards, the right scale, nothing left behind.
#include "api/init.h"

#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "api/inspect.h"
#include "api/load.h"
#include "api/loaded.h"
#include "api/presets.h"
#include "api/random_fill.h"
#include "base/error.h"
#include "base/file.h"
#include "base/threads.h"
#include "ckpt/test_files.h"
#include "nn/kv_cache.h"

namespace statera {
namespace {

const std::string kTiny = std::string(STATERA_SOURCE_DIR) + "/tests/tiny/";

InitReport make(const std::string& config, const std::string& out, int64_t seed = 5, const std::string& shard = "5GB") {
  InitOptions o;
  o.config = config;
  o.out = out;
  o.seed = seed;
  o.max_shard = shard;
  return init(o);
}

TEST(RandomFill, ElementsAreNormalEnoughAndDependOnSeedNameAndPositionOnly) {
  RandomFill a(1, "x"), b(1, "y"), c(2, "x");
  double sum = 0, squares = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    sum += a.at(i);
    squares += a.at(i) * a.at(i);
  }
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(squares / n, 1, 0.02);
  EXPECT_NE(a.at(7), b.at(7));
  EXPECT_NE(a.at(7), c.at(7));
  float whole[100], part[50];
  a.fill(whole, 0, 100, 0, 1);
  a.fill(part, 50, 50, 0, 1);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(part[i], whole[50 + i]);
}

TEST(Init, TheSameSeedGivesTheSameBytesWithAnyNumberOfThreads) {
  TempDir dir;
  const int before = num_threads();
  set_num_threads(1);
  make(kTiny + "qwen3_vl", dir / "one");
  set_num_threads(4);
  make(kTiny + "qwen3_vl", dir / "four");
  set_num_threads(before);
  EXPECT_EQ(read_file(dir / "one/model.safetensors"), read_file(dir / "four/model.safetensors"));
  make(kTiny + "qwen3_vl", dir / "other", 6);
  EXPECT_NE(read_file(dir / "one/model.safetensors"), read_file(dir / "other/model.safetensors"));
}

TEST(Init, ShardsHoldTheSameTensorsAndAreIndexed) {
  TempDir dir;
  make(kTiny + "qwen2", dir / "one");
  const InitReport r = make(kTiny + "qwen2", dir / "many", 5, "60KB");
  EXPECT_GT(r.files, 2);
  Checkpoint one = Checkpoint::open(dir / "one"), many = Checkpoint::open(dir / "many");
  ASSERT_EQ(one.names(), many.names());
  for (const std::string& name : one.names()) EXPECT_TRUE(one.tensor(name).equal(many.tensor(name))) << name;
}

TEST(Init, EveryTinyConfigMakesACompleteCheckpointInReleasedNames) {
  for (const char* name : {"llama", "mistral", "qwen2", "qwen3", "phi3", "mixtral", "qwen2_moe", "qwen3_moe", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"}) {
    TempDir dir;
    make(kTiny + name, dir / "x");
    InspectOptions o;
    o.model = dir / "x";
    const InspectReport made = inspect(o);
    EXPECT_TRUE(made.missing.empty() && made.unexpected.empty() && made.misshapen.empty()) << made.to_text();
    EXPECT_EQ(Checkpoint::open(dir / "x").names(), Checkpoint::open(kTiny + name).names()) << name;
    EXPECT_NE(open_model(dir / "x", {}).model, nullptr);
  }
}

TEST(Init, PresetsHaveTheSizesOfTheirNames) {
  for (auto [name, low, high] : {std::tuple{"qwen3-vl-2b", 2.0e9, 2.3e9},
                                 {"qwen3-vl-4b", 4.3e9, 4.6e9},
                                 {"qwen2-vl-2b", 2.1e9, 2.3e9},
                                 {"qwen2.5-1.5b", 1.5e9, 1.6e9},
                                 {"qwen2.5-0.5b", 0.48e9, 0.5e9},
                                 {"qwen3-30b-a3b", 30.4e9, 30.6e9},
                                 {"qwen3-moe-small", 0.155e9, 0.165e9}}) {
    const Json config = preset_config(name);
    double parameters = 0;
    for (const Expected& e : expected_parameters(model_type(config), config, [](const std::string&) { return true; })) {
      double n = 1;
      for (int64_t d : e.shape) n *= static_cast<double>(d);
      parameters += n;
    }
    EXPECT_GT(parameters, low) << name;
    EXPECT_LT(parameters, high) << name;
  }
}

TEST(Init, AnUnknownConfigNamesTheNearestPreset) {
  TempDir dir;
  try {
    make("qwen3-vl-3b", dir / "x");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::not_found);
    EXPECT_NE(e.message().find("did you mean \"qwen3-vl-"), std::string::npos) << e.message();
  }
}

TEST(Init, AnInterruptedOrRefusedRunLeavesNothing) {
  TempDir dir;
  InitOptions o;
  o.config = kTiny + "qwen2";
  o.out = dir / "x";
  std::atomic<bool> cancel = true;
  EXPECT_THROW(init(o, {}, &cancel), Error);
  EXPECT_TRUE(std::filesystem::is_empty(std::string(dir)));
  init(o);
  EXPECT_THROW(init(o), Error) << "exists already";
  o.overwrite = true;
  EXPECT_NO_THROW(init(o));
}

TEST(Inspect, ProblemsAreListedAndNoError) {
  TempDir dir;
  std::filesystem::copy(kTiny + "qwen2", dir / "x");
  SafetensorsFile file(dir / "x/model.safetensors");
  NamedTensors tensors;
  for (const TensorInfo& t : file.tensors()) {
    if (t.name == "model.norm.weight") continue;
    tensors.emplace_back(t.name, t.name == "model.layers.0.mlp.up_proj.weight" ? file.tensor(t).t() : file.tensor(t));
  }
  tensors.emplace_back("surplus", file.tensor("model.norm.weight"));
  write_safetensors(dir / "x/model.safetensors", tensors);
  InspectOptions o;
  o.model = dir / "x";
  const InspectReport r = inspect(o);
  EXPECT_EQ(r.missing, std::vector<std::string>{"model.norm.weight"});
  EXPECT_EQ(r.unexpected, std::vector<std::string>{"surplus"});
  ASSERT_EQ(r.misshapen.size(), 1u);
  EXPECT_NE(r.misshapen[0].find("up_proj.weight: shape"), std::string::npos);
  EXPECT_EQ(r.to_json().at("missing").as_array().size(), 1u);
  EXPECT_THROW(open_model(dir / "x", {}), Error);
}

TEST(Inspect, KeysAndValuesAreCountedForTheContext) {
  InspectOptions o;
  o.model = kTiny + "qwen2";
  o.context = 64;
  // What the cache of a model opened with the defaults really takes after so many tokens.
  const Loaded loaded = open_model(o.model, {});
  InspectReport r;
  for (const char* form : {"auto", "fp16", "int8"}) {
    o.kv_cache = form;
    r = inspect(o);
    KvCache cache(loaded.model->language().blocks(), parse_kv_form(form));
    ModelInputs inputs;
    inputs.input_ids = at::arange(o.context, at::kLong);
    Pass pass = make_pass(*loaded.model, inputs);
    pass.caches = {&cache};
    forward_hidden(*loaded.model, inputs, pass);
    EXPECT_EQ(r.kv_bytes, cache.bytes()) << form;
  }
  int64_t parameters = 0;
  for (const InspectPart& p : r.parts) parameters += p.parameters;
  EXPECT_EQ(parameters, r.parameters);
}

TEST(OpenModel, AnUnknownModelTypeNamesTheNearest) {
  TempDir dir;
  std::filesystem::copy(kTiny + "qwen2", dir / "x");
  write_text(dir / "x/config.json", R"({"model_type": "qwen22"})");
  try {
    open_model(dir / "x", {});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
    EXPECT_NE(e.message().find("config.json"), std::string::npos) << e.message();
    EXPECT_NE(e.message().find("qwen2"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace statera
