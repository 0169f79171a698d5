// See lora.h.
#include "train/lora.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/pattern.h"
#include "base/rng.h"

namespace statera {

std::vector<std::string> adapted_paths(const Model& model, const LoraSettings& settings) {
  std::vector<Pattern> patterns;
  for (const std::string& target : settings.targets) patterns.emplace_back(target, "--lora-target");
  std::vector<std::string> out;
  for (const auto& [path, site] : model.params.linears) {
    const std::string& name = path;
    const bool chosen = patterns.empty() ? site->role == Role::attention
                                         : std::any_of(patterns.begin(), patterns.end(), [&](const Pattern& p) { return p.found_in(name); });
    if (chosen) out.push_back(path);
  }
  if (out.empty()) throw Error(ErrorKind::usage, "--lora-target: no layer's path is found by any of the patterns");
  return out;
}

std::vector<Parameter> make_adapters(Model& model, const LoraSettings& settings, at::ScalarType dtype) {
  if (settings.r < 1) throw Error(ErrorKind::usage, "--lora-r must be at least 1, is " + std::to_string(settings.r));
  make_parameters(model, {}, dtype);  // freezes everything
  std::vector<Parameter> out;
  for (const std::string& path : adapted_paths(model, settings)) {
    LinearSite& site = *model.params.linears.at(path);
    const Rng rng(settings.seed, hash_name(path + ".lora_A.weight"));
    const double bound = 1 / std::sqrt(static_cast<double>(site.in));
    at::Tensor A = at::empty({settings.r, site.in}, at::kFloat);
    for (int64_t i = 0; i < A.numel(); ++i) A.mutable_data_ptr<float>()[i] = static_cast<float>((2 * rng.uniform_at(static_cast<uint64_t>(i)) - 1) * bound);
    auto adapter = std::make_shared<Adapter>();
    adapter->A = A.to(dtype).requires_grad_(true);
    adapter->B = at::zeros({site.out, settings.r}, dtype).requires_grad_(true);
    adapter->scale = settings.alpha / static_cast<double>(settings.r);
    site.adapter = adapter;
    const Part part = part_of(model.params, path, site.role);
    out.push_back({path + ".lora_A.weight", part, true, adapter->A});
    out.push_back({path + ".lora_B.weight", part, true, adapter->B});
  }
  return out;
}

DropoutScope::DropoutScope(const Model& model, double p, uint64_t draw) {
  if (p == 0) return;
  for (const auto& [path, site] : model.params.linears) {
    if (!site->adapter) continue;
    adapters_.push_back(site->adapter);
    site->adapter->dropout = p;
    site->adapter->draw = draw;
  }
}

DropoutScope::~DropoutScope() {
  for (const auto& adapter : adapters_) adapter->dropout = 0;
}

}  // namespace statera
