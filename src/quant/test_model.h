// A toy vision-language model for the tests of this folder: two language blocks, a tower of one block with a convolution, a projector, a
// head of its own, and checkpoints of it with seeded weights. No forward pass.
#pragma once

#include <ATen/ops/empty.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/test_files.h"
#include "nn/model.h"

namespace statera {

class ToyModel : public Model, LanguageStack {
 public:
  static constexpr int64_t kHidden = 64, kMlp = 96, kVocab = 50, kLayers = 3;
  ToyModel(const Json& json, WeightSource& source) {
    config = json;
    Scope root(source, params);
    keep_.push_back((root / "model" / "embed_tokens").tensor("weight", {kVocab, kHidden}, Role::embedding));
    for (int64_t i = 0; i < kLayers; ++i) {
      Scope block = (root / "model" / "layers" / i).at_block(i);
      keep_.push_back((block / "input_layernorm").tensor("weight", {kHidden}, Role::norm));
      Scope attn = (block / "self_attn").as(Role::attention);
      for (const char* name : {"q_proj", "k_proj", "v_proj"}) attn.linear(name, 40, kHidden, Bias::yes);
      attn.linear("o_proj", kHidden, 40 + 24);
      Scope mlp = (block / "mlp").as(Role::mlp);
      mlp.linear("gate_proj", kMlp, kHidden);
      mlp.linear("up_proj", kMlp, kHidden);
      mlp.linear("down_proj", kHidden, kMlp);
      mlp.linear("gate", 4, kHidden, Bias::none, Role::router);
    }
    Scope visual = (root / "model" / "visual").as(Role::vision);
    visual.patch_linear("patch_embed", 32, {3, 2, 2}, Bias::none);
    (visual / "blocks" / 0).at_block(0).linear("qkv", 96, 32, Bias::yes);
    (visual / "merger").as(Role::projector).linear("fc", kHidden, 32);
    root.linear("lm_head", kVocab, kHidden, Bias::none, Role::head);
  }
  const LanguageStack& language() const override { return *this; }
  ModelLimits limits() const override { return {}; }
  ResidualEnds residual_ends() const override { throw Bug("no residual"); }

 private:
  int64_t blocks() const override { return kLayers; }
  at::Tensor block(int64_t, const at::Tensor&, Pass&) const override { throw Bug("no forward pass"); }
  Topology topology(int64_t) const override { throw Bug("no topology"); }
  at::Tensor enter(const at::Tensor&, const VisualFeatures*, Pass&) const override { throw Bug("no forward pass"); }
  at::Tensor leave(const at::Tensor&, const Pass&) const override { throw Bug("no forward pass"); }
  at::Tensor head(const at::Tensor&, const Pass&) const override { throw Bug("no forward pass"); }
  bool cache_valid(int64_t, int64_t) const override { return true; }
  std::vector<std::shared_ptr<TensorSite>> keep_;
};

// Released layouts call the tower "visual".
inline const ModelType& toy_type() {
  static const ModelType type{
      "toy", {}, {{{"model.visual.", "visual."}}, {}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
        return std::make_unique<ToyModel>(config, source);
      }};
  return type;
}

// Weights, a config, a tokenizer, a template, a pickle that must not be carried over and a tensor that the model does not know.
inline NamedTensors toy_tensors(at::ScalarType dtype, uint64_t seed = 1) {
  NamedTensors out;
  auto has = [](const std::string&) { return true; };
  for (const Expected& e : expected_parameters(toy_type(), Json::object(), has)) {
    at::Tensor t = at::empty(e.shape, at::kFloat);
    Rng rng(seed, hash_name(e.name));
    for (int64_t i = 0; i < t.numel(); ++i)
      t.mutable_data_ptr<float>()[i] = static_cast<float>(0.1 * rng.normal_at(static_cast<uint64_t>(i)));
    out.emplace_back(map_name(toy_type().layouts[0], e.name), t.to(dtype));
  }
  out.emplace_back("model.rotary.extra", at::empty({3}, at::kFloat).fill_(2));
  return out;
}

inline void write_toy(const std::string& folder, const NamedTensors& tensors, size_t shards = 1) {
  write_text(folder + "/config.json", "{\"model_type\": \"toy\", \"hidden_size\": 64, \"rms_norm_eps\": 1e-06}\n");
  write_text(folder + "/tokenizer.json", "{\"model\": {}}");
  write_text(folder + "/chat_template.jinja", "{{ messages }}");
  write_text(folder + "/optimizer.bin", "pickle");
  if (shards == 1) return write_safetensors(folder + "/model.safetensors", tensors);
  std::vector<TensorPlan> plans;
  for (const auto& [name, t] : tensors) plans.push_back({name, t.scalar_type(), t.sizes().vec()});
  uint64_t bytes = 0;
  for (const auto& p : plans) bytes += p.bytes();
  Json map = Json::object(), index = Json::object();
  std::vector<NamedTensors> parts(shards);
  for (size_t i = 0; i < tensors.size(); ++i) parts[i % shards].push_back(tensors[i]);
  for (size_t s = 0; s < shards; ++s) {
    const std::string name = "model-0000" + std::to_string(s + 1) + "-of-0000" + std::to_string(shards) + ".safetensors";
    write_safetensors(folder + "/" + name, parts[s]);
    for (const auto& part : parts[s]) map.set(part.first, name);
  }
  index.set("metadata", Json::object());
  index.set("weight_map", map);
  write_text(folder + "/model.safetensors.index.json", index.dump());
}

// An opened toy checkpoint and its model.
struct Toy {
  explicit Toy(const std::string& folder)
      : source(Checkpoint::open(folder), toy_type()), model(toy_type().make(source.checkpoint().config(), source)) {}
  CheckpointSource source;
  std::unique_ptr<Model> model;
};

}  // namespace statera
