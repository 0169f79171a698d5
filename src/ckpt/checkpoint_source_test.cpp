// A toy model read through CheckpointSource under every spelling of its names.
#include "ckpt/checkpoint_source.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "ckpt/own_head.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

class Toy : public Model {
 public:
  const LanguageStack& language() const override { throw Bug("no stack"); }
  ModelLimits limits() const override { return {}; }
  ResidualEnds residual_ends() const override { return {}; }
};

std::unique_ptr<Model> make_toy(const Json& config, WeightSource& source) {
  auto model = std::make_unique<Toy>();
  Scope root(source, model->params);
  Scope text = root / "model" / "language_model";
  (text / "embed_tokens").tensor("weight", {10, 4});
  (text / "layers" / 0).linear("q_proj", 4, 4, Bias::if_present);
  (root / "model" / "visual").linear("qkv", 6, 4);
  if (!config.get_bool("tie_word_embeddings", false)) root.linear("lm_head", 10, 4);
  return model;
}

const ModelType kToy{"toy",
                     {},
                     {{{"model.visual.", "visual."}, {"model.language_model.", "model."}},
                      {{"model.visual.", "model.visual."}, {"model.language_model.", "model.language_model."}}},
                     make_toy};

struct Names {
  std::string text, visual;
};

NamedTensors toy_tensors(const Names& n) {
  return {{n.text + "embed_tokens.weight", at::arange(40).to(at::kBFloat16).reshape({10, 4})},
          {n.text + "layers.0.q_proj.weight", at::ones({4, 4}).to(at::kHalf)},
          {n.visual + "qkv.weight", at::ones({6, 4})},
          {"lm_head.weight", at::ones({10, 4})}};
}

Checkpoint save(const TempDir& dir, const NamedTensors& tensors, const std::string& config = "{}") {
  write_text(dir / "config.json", config);
  write_safetensors(dir / "model.safetensors", tensors);
  return Checkpoint::open(dir);
}

TEST(OwnHead, ATiedHeadBecomesALayerOfTheEmbeddingsValues) {
  const std::string tied = R"({"tie_word_embeddings": true, "text_config": {"tie_word_embeddings": true}})";
  NamedTensors tensors = toy_tensors({"model.", "visual."});
  {
    TempDir dir;
    const Checkpoint untouched = save(dir, tensors);
    EXPECT_TRUE(with_own_head(untouched, kToy).aliases().empty());
  }
  tensors.pop_back();
  TempDir dir;
  const Checkpoint from = save(dir, tensors, tied), own = with_own_head(from, kToy);
  EXPECT_FALSE(own.config().at("tie_word_embeddings").as_bool());
  EXPECT_FALSE(own.config().at("text_config").at("tie_word_embeddings").as_bool());
  ASSERT_EQ(own.aliases().size(), 1u);
  EXPECT_EQ(own.names().size(), from.names().size() + 1);
  EXPECT_EQ(own.bytes(), from.bytes());
  EXPECT_EQ(own.tensor("lm_head.weight").data_ptr(), from.tensor("model.embed_tokens.weight").data_ptr());
  EXPECT_TRUE(own.used("lm_head.weight"));
  EXPECT_FALSE(own.used("model.embed_tokens.weight"));
  EXPECT_TRUE(find_problems(own, kToy).empty());
  EXPECT_FALSE(from.has("lm_head.weight"));
}

TEST(OwnHead, AStoredCopyIsTakenWhereItIsTheEmbedding) {
  const std::string tied = R"({"tie_word_embeddings": true})";
  NamedTensors tensors = toy_tensors({"model.", "visual."});
  {
    TempDir dir;
    const Checkpoint other = save(dir, tensors, tied);
    EXPECT_THROW(with_own_head(other, kToy), Error);
  }
  tensors.back().second = tensors.front().second.clone();
  TempDir dir;
  const Checkpoint own = with_own_head(save(dir, tensors, tied), kToy);
  EXPECT_TRUE(own.aliases().empty());
  EXPECT_FALSE(own.config().at("tie_word_embeddings").as_bool());
}

TEST(CheckpointSource, EverySpellingOfTheNamesIsRead) {
  for (const Names& n : {Names{"model.", "visual."}, Names{"model.language_model.", "model.visual."},
                         Names{"model.language_model.model.", "model.visual."}}) {
    TempDir dir;
    CheckpointSource source(save(dir, toy_tensors(n)), kToy);
    auto model = make_toy(source.checkpoint().config(), source);
    EXPECT_EQ(source.disk_name("model.language_model.layers.0.q_proj"), n.text + "layers.0.q_proj");
    EXPECT_EQ(source.disk_name("model.visual.qkv"), n.visual + "qkv");
    EXPECT_EQ(source.disk_name("lm_head"), "lm_head");
    const auto& embed = model->params.tensors.at("model.language_model.embed_tokens.weight");
    EXPECT_EQ(embed->value.scalar_type(), at::kBFloat16);
    EXPECT_EQ(embed->value.data_ptr(), source.checkpoint().tensor(n.text + "embed_tokens.weight").data_ptr()) << "not a view of the file";
    EXPECT_EQ(model->params.linears.at("model.language_model.layers.0.q_proj")->weight->dense().scalar_type(), at::kHalf);
    EXPECT_FALSE(model->params.linears.at("model.language_model.layers.0.q_proj")->bias.defined());
    EXPECT_TRUE(source.unexpected().empty());
    EXPECT_TRUE(find_problems(source.checkpoint(), kToy).empty());
  }
}

TEST(CheckpointSource, AnOptionalBiasIsReadWhenItIsThere) {
  TempDir dir;
  NamedTensors tensors = toy_tensors({"model.", "visual."});
  tensors.emplace_back("model.layers.0.q_proj.bias", at::ones({4}));
  CheckpointSource source(save(dir, tensors), kToy);
  auto model = make_toy(Json(), source);
  EXPECT_TRUE(model->params.linears.at("model.language_model.layers.0.q_proj")->bias.defined());
}

TEST(CheckpointSource, QuantizedLayersComeFromTheirFormat) {
  TempDir dir;
  NamedTensors tensors = toy_tensors({"model.", "visual."});
  std::erase_if(tensors, [](const auto& t) { return t.first == "model.layers.0.q_proj.weight"; });
  const StoredLinear l{"model.layers.0.q_proj", 4, 4, {4, 4, true}, {}, at::kFloat};
  const Format& format = format_named("compressed-tensors");
  const QTensor q = rtn(at::randn({4, 4}), l.spec);
  for (auto& t : format.encode(l, q)) tensors.push_back(t);
  Json config = Json::object();
  config.set("quantization_config", format.quantization_config({l}, {"lm_head", "visual.qkv"}));
  Checkpoint c = save(dir, tensors, config.dump());
  EXPECT_TRUE(find_problems(c, kToy).empty());
  CheckpointSource source(c, kToy);
  auto model = make_toy(Json(), source);
  auto back = model->params.linears.at("model.language_model.layers.0.q_proj")->weight->unpack();
  ASSERT_TRUE(back);
  EXPECT_TRUE(at::equal(back->q, q.q));
  EXPECT_FALSE(model->params.linears.at("model.visual.qkv")->weight->unpack());
}

TEST(CheckpointSource, ProblemsAreFoundWithoutLoading) {
  TempDir dir;
  NamedTensors tensors = toy_tensors({"model.", "visual."});
  std::erase_if(tensors, [](const auto& t) { return t.first == "lm_head.weight" || t.first == "visual.qkv.weight"; });
  tensors.emplace_back("visual.qkv.weight", at::ones({4, 6}));
  tensors.emplace_back("model.layers.7.q_proj.weight", at::ones({4, 4}));
  tensors.emplace_back("model.rotary_emb.inv_freq", at::ones({2}));
  Checkpoint c = save(dir, tensors);
  CheckpointProblems p = find_problems(c, kToy);
  EXPECT_EQ(p.missing, std::vector<std::string>{"lm_head.weight"});
  EXPECT_EQ(p.unexpected, std::vector<std::string>{"model.layers.7.q_proj.weight"});
  EXPECT_EQ(p.misshapen, std::vector<std::string>{"visual.qkv.weight: shape [4, 6], expected [6, 4]"});
  CheckpointSource source(c, kToy);
  EXPECT_THROW(make_toy(Json(), source), Error);
}

TEST(CheckpointSource, AnUnusedTiedHeadIsNoProblem) {
  TempDir dir;
  Checkpoint c =
      save(dir, toy_tensors({"model.", "visual."}), R"({"text_config": {"tie_word_embeddings": true}, "tie_word_embeddings": true})");
  EXPECT_TRUE(find_problems(c, kToy).empty());
}

TEST(CheckpointSource, WeightsOfOtherDtypesAndPackedOnesWithoutConfigAreErrors) {
  TempDir dir;
  NamedTensors tensors = toy_tensors({"model.", "visual."});
  for (auto& [name, t] : tensors) {
    if (name == "lm_head.weight") t = at::ones({10, 4}, at::kChar);
  }
  CheckpointSource integers(save(dir, tensors), kToy);
  EXPECT_THROW(make_toy(Json(), integers), Error);
  TempDir other;
  tensors = toy_tensors({"model.", "visual."});
  for (auto& [name, t] : tensors) {
    if (name == "lm_head.weight") name = "lm_head.weight_packed";
  }
  CheckpointSource packed(save(other, tensors), kToy);
  try {
    make_toy(Json(), packed);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("no quantization_config"), std::string::npos) << e.message();
  }
}

TEST(CheckpointSource, AnUnknownQuantizationIsUnsupported) {
  TempDir dir;
  Checkpoint c = save(dir, toy_tensors({"model.", "visual."}), R"({"quantization_config": {"quant_method": "awq"}})");
  EXPECT_THROW(CheckpointSource(c, kToy), Error);
}

}  // namespace
}  // namespace statera
