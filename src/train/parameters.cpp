// See parameters.h.
#include "train/parameters.h"

#include <algorithm>

#include "base/error.h"
#include "nn/mixed.h"

namespace statera {
namespace {

constexpr std::string_view kWeight = ".weight", kBias = ".bias", kLoraA = ".lora_A.weight", kLoraB = ".lora_B.weight";

at::Tensor fresh_leaf(const at::Tensor& value, at::ScalarType dtype) {
  return value.detach().to(dtype).clone(at::MemoryFormat::Contiguous).requires_grad_(true);
}

bool inside(std::string_view path, std::string_view module) {
  return path.size() > module.size() && path.starts_with(module) && path[module.size()] == '.';
}

// Answers as the model did when it was made, so that the replica gets the same layers; hands out nothing.
class SameLayers : public WeightSource {
 public:
  explicit SameLayers(const Params& params) : params_(params) {}
  bool has(const std::string& name) const override {
    if (params_.tensors.contains(name)) return true;
    return name.ends_with(kWeight) && params_.linears.contains(name.substr(0, name.size() - kWeight.size()));
  }
  at::Tensor tensor(const std::string&, const std::vector<int64_t>&) override { return {}; }
  Weight linear(const std::string&, int64_t, int64_t, std::optional<ActQuant>&) override { return nullptr; }

 private:
  const Params& params_;
};

// A matrix held as the model's others are.
Weight held(const Model& model, const at::Tensor& W) {
  const bool mixed = std::ranges::any_of(model.params.linears, [](const auto& l) { return l.second->weight && is_mixed(*l.second->weight); });
  return mixed ? make_mixed(W.to(at::kFloat)) : make_dense(W);
}

}  // namespace

std::string_view to_string(Part part) {
  switch (part) {
    case Part::vision: return "vision";
    case Part::merger: return "merger";
    case Part::language: return "language";
    case Part::embeddings: return "embeddings";
  }
  throw Bug("unnamed Part");
}

Part part_of(const Params& params, const std::string& path, Role role) {
  if (role == Role::vision) return Part::vision;
  if (role == Role::projector) return Part::merger;
  if (role == Role::head) return Part::embeddings;
  for (std::string module = path; !module.empty();) {
    bool vision = false, projector = false, language = false;
    for (const auto& [name, site] : params.linears) {
      if (name != module && !inside(name, module)) continue;
      vision |= site->role == Role::vision;
      projector |= site->role == Role::projector;
      language |= site->role != Role::vision && site->role != Role::projector;
    }
    if (language) return role == Role::embedding ? Part::embeddings : Part::language;
    if (vision) return Part::vision;
    if (projector) return Part::merger;
    const size_t dot = module.rfind('.');
    module.resize(dot == module.npos ? 0 : dot);
  }
  return role == Role::embedding ? Part::embeddings : Part::language;
}

void tie_head(Model& model) {
  const ResidualEnds ends = model.residual_ends();
  LinearSite& head = ends.head.site();
  if (!model.params.linears.contains(head.path)) head.weight = held(model, ends.embedding->value);
}

void put_leaf(Model& model, const std::string& name, const at::Tensor& leaf) {
  auto linear = [&](std::string_view suffix) {
    auto it = model.params.linears.find(name.substr(0, name.size() - suffix.size()));
    return it == model.params.linears.end() ? nullptr : it->second;
  };
  if (name.ends_with(kLoraA)) {
    linear(kLoraA)->adapter->A = leaf;
  } else if (name.ends_with(kLoraB)) {
    linear(kLoraB)->adapter->B = leaf;
  } else if (auto site = name.ends_with(kWeight) ? linear(kWeight) : nullptr) {
    site->weight = held(model, leaf);
  } else {
    model.params.tensors.at(name)->value = leaf;
    if (auto owner = name.ends_with(kBias) ? linear(kBias) : nullptr) owner->bias = leaf;
  }
}

void take_products_in_bf16(Model& model) {
  for (const auto& [path, site] : model.params.linears) {
    if (!site->weight->unpack()) site->weight = make_mixed(site->weight->dense().to(at::kFloat));
  }
  tie_head(model);
}

std::vector<Parameter> make_parameters(Model& model, const std::vector<Part>& learn, at::ScalarType dtype, const LeafMaker& make) {
  std::vector<Parameter> out;
  auto leaf = [&](const std::string& name, const at::Tensor& value) { return make ? make(name, value, dtype) : fresh_leaf(value, dtype); };
  auto learns = [&](Part part) { return std::find(learn.begin(), learn.end(), part) != learn.end(); };
  for (const auto& [path, site] : model.params.linears) {
    const Part part = part_of(model.params, path, site->role);
    const bool quantized = site->weight->unpack().has_value();
    if (learns(part)) {
      if (quantized) throw Error(ErrorKind::unsupported, path + ": is quantized and cannot learn; train adapters on it (--lora-r)");
      const std::string name = path + std::string(kWeight);
      out.push_back({name, part, true, leaf(name, site->weight->dense())});
    } else if (!quantized) {
      site->weight = held(model, site->weight->dense().to(dtype));
    }
  }
  for (const auto& [path, site] : model.params.tensors) {
    const Part part = part_of(model.params, path, site->role);
    if (learns(part)) {
      const bool decays = site->role != Role::norm && !path.ends_with(kBias);
      out.push_back({path, part, decays, leaf(path, site->value)});
    } else {
      put_leaf(model, path, site->value.to(dtype));
    }
  }
  for (const Parameter& p : out) put_leaf(model, p.name, p.leaf);
  tie_head(model);
  return out;
}

std::unique_ptr<Model> make_replica(const Model& model, const std::vector<Parameter>& parameters, std::vector<at::Tensor>& leaves) {
  SameLayers source(model.params);
  std::unique_ptr<Model> replica = model_type(model.config).make(model.config, source);
  replica->dtype = model.dtype;
  for (const auto& [path, site] : replica->params.linears) {
    const LinearSite& from = *model.params.linears.at(path);
    site->weight = from.weight;
    site->bias = from.bias;
    site->input_rotation = from.input_rotation;
    site->act = from.act;
    if (from.adapter) site->adapter = std::make_shared<Adapter>(*from.adapter);
  }
  for (const auto& [path, site] : replica->params.tensors) site->value = model.params.tensors.at(path)->value;
  leaves.clear();
  for (const Parameter& p : parameters) {
    leaves.push_back(p.leaf.detach().requires_grad_(true));
    put_leaf(*replica, p.name, leaves.back());
  }
  tie_head(*replica);
  return replica;
}

}  // namespace statera
