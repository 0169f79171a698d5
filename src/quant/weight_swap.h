// WeightSwap: parameters as something else for a while; put back bit-equal at the end of the object.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "nn/site.h"
#include "nn/weight.h"

namespace statera {

class WeightSwap {
 public:
  WeightSwap() = default;
  WeightSwap(const WeightSwap&) = delete;
  WeightSwap& operator=(const WeightSwap&) = delete;
  ~WeightSwap() { restore(); }
  // Puts everything back; what was kept stays known.
  void restore() {
    for (auto& [site, was] : linears_) std::tie(site->weight, site->bias, site->act) = std::tie(was.weight, was.bias, was.act);
    for (auto& [site, was] : tensors_) site->value = was;
  }
  // What the site holds now comes back, whatever is done to it meanwhile.
  void keep(const std::shared_ptr<LinearSite>& site) { linears_.try_emplace(site, Held{site->weight, site->bias, site->act}); }
  void keep(const std::shared_ptr<TensorSite>& site) { tensors_.try_emplace(site, site->value); }
  void set(const std::shared_ptr<LinearSite>& site, Weight weight, const std::optional<ActQuant>& act) {
    keep(site);
    site->weight = std::move(weight);
    site->act = act;
  }
  // As it was when the site was kept.
  const Weight& weight_of(const std::shared_ptr<LinearSite>& site) const { return linears_.at(site).weight; }

 private:
  struct Held {
    Weight weight;
    at::Tensor bias;
    std::optional<ActQuant> act;
  };
  std::map<std::shared_ptr<LinearSite>, Held> linears_;
  std::map<std::shared_ptr<TensorSite>, at::Tensor> tensors_;
};

}  // namespace statera
