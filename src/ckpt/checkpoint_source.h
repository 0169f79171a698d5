// CheckpointSource: a checkpoint as the WeightSource of one model type. Maps the model's internal names to the names in the files,
// hands out dense weights as views in their stored dtype, and asks the checkpoint's format for quantized ones.
// Tied heads are not its matter (Scope::tied); nothing here knows a particular model.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ckpt/checkpoint.h"
#include "ckpt/format.h"
#include "nn/model.h"
#include "nn/scope.h"

namespace statera {

// (internal prefix -> prefix in the files); the longest internal prefix that matches applies, a name without one is unchanged.
using Layout = std::vector<std::pair<std::string, std::string>>;
std::string map_name(const Layout& layout, std::string_view internal);

// A parameter that a model of this config asks for.
struct Expected {
  std::string name;  // internal, with ".weight"
  std::vector<int64_t> shape;
  bool linear = false;
};
// All of them, in order of construction, without reading weights. Optional ones (biases, ...) are listed when `has` says so.
std::vector<Expected> expected_parameters(const ModelType& type, const Json& config, const std::function<bool(const std::string&)>& has);

// The alternative of type.layouts (or no renaming, or either with the doubled prefix of some transformers releases) under which
// most of the model's parameters are in the checkpoint; the first of equals.
Layout choose_layout(const Checkpoint& checkpoint, const ModelType& type);

struct CheckpointProblems {
  std::vector<std::string> missing;     // names in the files that the model needs
  std::vector<std::string> unexpected;  // tensors that it does not
  std::vector<std::string> misshapen;   // "NAME: what is wrong"
  bool empty() const { return missing.empty() && unexpected.empty() && misshapen.empty(); }
};

class CheckpointSource : public WeightSource {
 public:
  // Error(unsupported) when the checkpoint's quantization is of no known format. The type is referred to: an entry of a table.
  CheckpointSource(Checkpoint checkpoint, const ModelType& type);
  bool has(const std::string& name) const override;
  at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape) override;
  Weight linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) override;

  // On-disk names of an internal module path and of an internal parameter name.
  std::string disk_name(const std::string& path) const;
  std::string disk_tensor(const std::string& name) const { return map_name(layout_, name); }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const ModelType& type() const { return type_; }
  const Layout& layout() const { return layout_; }
  // The tensor that holds a linear layer's floating weight: "<its name>.weight", or the fused one of its experts.
  std::string stored_tensor(const LinearSite& site) const;
  // That weight as it lies there, [out, in].
  at::Tensor stored_weight(const LinearSite& site) const;
  // Drops the resident pages of that weight.
  void release(const LinearSite& site) const;
  // The format of the checkpoint's quantization, or nullptr.
  const Format* format() const { return format_; }
  // Tensors not read so far that no model needs explained (rotary tables, position ids and the like are left out).
  std::vector<std::string> unexpected() const;

 private:
  Checkpoint checkpoint_;
  const ModelType& type_;
  Layout layout_;
  const Format* format_ = nullptr;
};

// Compares a checkpoint with what its model needs; reads headers only.
CheckpointProblems find_problems(const Checkpoint& checkpoint, const ModelType& type);

}  // namespace statera
