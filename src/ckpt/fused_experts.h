// Fused experts: checkpoints that hold a block's experts in two tensors, "<experts>.gate_up_proj" and "<experts>.down_proj" with one matrix
// per expert, in place of one "<experts>.<e>.<layer>.weight" each. Finds the matrix of one expert's layer; nothing is copied.
// Two layouts: transformers 5 writes [E, 2I, H] and [E, H, I] (y = x W^T); Qwen3-VL-MoE was released as [E, H, 2I] and [E, I, H]
// (y = x W). gate comes before up in both. Only shapes tell them apart.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ckpt/checkpoint.h"

namespace statera {

// One layer of one expert inside a fused tensor.
struct FusedExpert {
  std::string tensor;  // on disk
  int64_t expert = 0;
  int64_t begin = 0;   // of the layer's outputs among the outputs of its matrix
  int64_t out = 0, in = 0;
  bool input_major = false;  // y = x W
  std::string problem;       // why it cannot be read: shape or dtype; empty: it can
};

// The layer `disk_path` ("...experts.3.up_proj") of shape [out, in], when a fused tensor holds it and no tensor of its own does.
std::optional<FusedExpert> find_fused_expert(const Checkpoint& checkpoint, std::string_view disk_path, int64_t out, int64_t in);
// Whether a tensor stands for "<disk_path>.weight" in that way.
bool has_fused_expert(const Checkpoint& checkpoint, std::string_view disk_path);
// [out, in], a view of the mapped file with either stride 1. Error(bad_file) naming file and tensor where there is a problem.
at::Tensor fused_expert_weight(const Checkpoint& checkpoint, const FusedExpert& layer);
// Drops resident pages of the layer's expert.
void release_fused_expert(const Checkpoint& checkpoint, const FusedExpert& layer);

}  // namespace statera
