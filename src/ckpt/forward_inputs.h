// forward_inputs: tensors by their Hugging Face forward names, read from a safetensors file into ragged ModelInputs, and rows of a
// ragged pass laid back into [B, L, ...].
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "nn/model.h"

namespace statera {

struct ForwardInputs {
  ModelInputs inputs;
  int64_t batch = 1, length = 0;  // B, L
  at::Tensor kept;                // i64 [T], places of the rows in the flattened [B * L]; undefined: all
  // [T, ...] -> [B, L, ...], left-out rows 0.
  at::Tensor unflatten(const at::Tensor& rows) const;
};

// The forms that api/logits.h lists. Error(bad_file) naming file and tensor for wrong dtypes and shapes.
ForwardInputs read_forward_inputs(const std::string& path);

}  // namespace statera
