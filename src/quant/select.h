// Which linear layers are quantized: by role, then by the user's patterns. Decides names only; reads no weights.
// Default: attention, mlp and expert layers of the language stack. Vision tower, projector and head on request; routers, embeddings,
// norms and convolutions never.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ckpt/checkpoint_source.h"
#include "nn/model.h"
#include "quant/recipes/overrides.h"

namespace statera {

struct SelectOptions {
  bool vision = false, projector = false, head = false;
  // Patterns searched for in on-disk module names ("model.layers.0.mlp.down_proj"); a layer that any of them finds stays floating.
  std::vector<std::string> ignore;
  // Exceptions to the run's bits, groups and symmetry, in order: where several find a layer, the last one that says something counts.
  std::vector<Override> overrides;
};

// Why a layer stays floating by what it is; empty: it is to be quantized.
std::string reason_by_role(const LinearSite& site, const SelectOptions& options);
// Error(usage) for a request (head, vision, projector) that the model has nothing for.
void check_requests(const Model& model, const SelectOptions& options);

struct LayerChoice {
  std::shared_ptr<LinearSite> site;
  std::string disk_path;  // module name in the files
  bool quantized = false;
  std::string reason;  // why not, else empty
  QSpec spec;          // what a quantized layer becomes
  bool own_bits = false;  // an override says how many
};

// Every linear layer of the model, in the order of their blocks. Error(usage): a broken pattern, one that finds no layer (an override: none
// that is quantized), a request (head, vision, projector) that the model has nothing for, a selection that is empty, or a layer whose width
// its group does not divide. `spec`: of layers that no override finds.
std::vector<LayerChoice> select_layers(const Model& model, const CheckpointSource& source, const SelectOptions& options, const QSpec& spec);

// Layers that inference engines compute as one, of those given, as indices: q/k/v, gate/up, MLA's two down projections, and all experts of
// a block. Every layer is in exactly one set, alone where nothing is fused; sets in order of their first layer.
std::vector<std::vector<size_t>> fused_sets(const std::vector<LayerChoice>& layers);

// Fused sets of which only some layers are quantized, or that differ in bits, group or symmetry: one line each.
std::vector<std::string> split_fusions(const std::vector<LayerChoice>& layers);

}  // namespace statera
