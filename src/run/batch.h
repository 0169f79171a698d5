// batch: the two ragged passes of generation: whole prompts into empty caches, and one token for every running sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/model.h"
#include "run/sequence.h"

namespace statera {

// Several inputs one after another; position rows become three when any input has three. At least one.
ModelInputs concatenate(const std::vector<ModelInputs>& inputs);
// Reads everything the sequences hold; their caches must be empty. Logits after each one's last token, f32 [B, V].
// Stops with Error(interrupted) between two blocks once all of them are cancelled.
at::Tensor prefill(const Model& model, const std::vector<Sequence*>& batch);
// Reads each sequence's last token; the caches hold all before it. f32 [B, V]
at::Tensor decode(const Model& model, const std::vector<Sequence*>& batch);

}  // namespace statera
