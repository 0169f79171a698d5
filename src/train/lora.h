// lora: low-rank adapters on layers whose own weights stay as they are, dense or packed: y += alpha / r * B A x (LoRA, Hu et al. 2021).
// Files in PEFT's layout are api/adapter.h's matter.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/model.h"
#include "train/parameters.h"

namespace statera {

struct LoraSettings {
  int64_t r = 8;
  double alpha = 16;
  std::vector<std::string> targets = {};  // regular expressions searched in paths; none: q, k, v and o of the language model
  uint64_t seed = 0;
  double dropout = 0;  // for the files; TrainSettings says what is dropped
};

// Puts an adapter into every layer that is chosen: A drawn as PEFT draws it (Kaiming uniform, by seed and path), B zero. All other weights
// are frozen and, when dense, brought to `dtype`. Error(usage) when no layer is chosen.
std::vector<Parameter> make_adapters(Model& model, const LoraSettings& settings, at::ScalarType dtype);

// While it lives, adapters of a model drop elements of what they read with probability p, by masks of `draw` and their paths.
class DropoutScope {
 public:
  DropoutScope(const Model& model, double p, uint64_t draw);
  ~DropoutScope();
  DropoutScope(const DropoutScope&) = delete;
  DropoutScope& operator=(const DropoutScope&) = delete;

 private:
  std::vector<std::shared_ptr<Adapter>> adapters_;
};

// The paths that get adapters.
std::vector<std::string> adapted_paths(const Model& model, const LoraSettings& settings);

}  // namespace statera
