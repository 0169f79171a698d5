// Which linear layers are quantized: by role, then by the user's patterns. Decides names only; reads no weights.
// Default: attention, mlp and expert layers of the language stack. Vision tower, projector and head on request; routers, embeddings,
// norms and convolutions never.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ckpt/checkpoint_source.h"
#include "nn/model.h"

namespace statera {

struct SelectOptions {
  bool vision = false, projector = false, head = false;
  // Patterns searched for in on-disk module names ("model.layers.0.mlp.down_proj"); a layer that any of them finds stays floating.
  std::vector<std::string> ignore;
};

struct LayerChoice {
  std::shared_ptr<LinearSite> site;
  std::string disk_path;  // module name in the files
  bool quantized = false;
  std::string reason;  // why not, else empty
};

// Every linear layer of the model, in the order of their blocks. Error(usage): a broken pattern, one that finds no layer, a request
// (head, vision, projector) that the model has nothing for, a selection that is empty, or a layer whose width the group does not divide.
std::vector<LayerChoice> select_layers(const Model& model, const CheckpointSource& source, const SelectOptions& options, const QSpec& spec);

// Layers that inference engines fuse into one (q/k/v, gate/up) and of which only some are quantized: one line each.
std::vector<std::string> split_fusions(const std::vector<LayerChoice>& layers);

}  // namespace statera
