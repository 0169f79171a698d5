// OutputPlan: every tensor of the output, its file and offset, before a weight is read. Each source tensor is copied as it is or becomes
// the tensors of a quantized layer; nothing else appears and nothing is left out (checked). No writing here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ckpt/format.h"
#include "ckpt/shards.h"
#include "quant/select.h"

namespace statera {

struct LayerPlan {
  StoredLinear stored;
  std::shared_ptr<LinearSite> site;
  std::string source;               // on-disk tensor it comes from: "<path>.weight", or one with those of other experts
  // Of the weight in the source, whose type its scales keep.
  uint64_t source_bytes() const { return static_cast<uint64_t>(stored.out * stored.in) * c10::elementSize(stored.scale_dtype); }
  std::vector<TensorPlan> tensors;  // what it becomes
};

// Work that is done, synced and journalled at once: a block, what lies outside blocks of a vision tower, or all else outside blocks. In the
// order in which samples run through the model: the tower's blocks, its projectors, the language blocks, the head.
struct UnitPlan {
  std::string name;       // internal path of the block, "model.layers.3", "projectors" or "outside blocks"
  bool language = false;  // block of the language stack
  bool vision = false;    // block of the vision tower, or what lies outside its blocks
  int64_t block = -1;
  std::vector<size_t> layers;     // indices of OutputPlan::layers
  std::vector<std::string> kept;  // on-disk tensors copied as they are
  uint64_t source_bytes = 0;
};

// Tensors of one role.
struct RoleCount {
  int64_t quantized_layers = 0, kept_layers = 0, kept_tensors = 0;
  uint64_t source_bytes = 0, result_bytes = 0;
};

struct OutputPlan {
  std::vector<LayerChoice> choices;  // all linear layers of the model
  std::vector<LayerPlan> layers;     // those that are quantized
  std::vector<UnitPlan> units;
  ShardPlan shards;
  Json config;  // config.json of the output
  std::map<std::string, RoleCount> roles;
  std::map<std::string, std::string> internal_of;  // on-disk tensor -> internal name, of the model's parameters
  std::map<std::string, std::string> role_of;      // on-disk tensor of the source -> role
  std::vector<std::string> unknown;                // tensors that the model does not know; kept
  std::vector<std::string> warnings;
  int64_t weights = 0;                          // quantized weights (elements)
  uint64_t source_bytes = 0, result_bytes = 0;  // of tensor data
  uint64_t quantized_bytes = 0;                 // of the quantized layers' tensors
};

struct PlanOptions {
  QSpec weights;
  std::optional<ActQuant> act;
  SelectOptions select;
  std::map<std::string, int> bits;  // of single layers by on-disk path, as a bit budget chose them (sensitivity.h)
  std::string format = "compressed-tensors";
  uint64_t max_shard_bytes = kDefaultShardBytes;
};

// Error(unsupported): a source that is quantized already. Error(usage): see select_layers. Error(bad_file): a layer without its tensor.
OutputPlan plan_output(const Model& model, const CheckpointSource& source, const PlanOptions& options);

}  // namespace statera
