// Writing safetensors files: whole files at once, and the header bytes of files whose tensors arrive later (shards.h).
// Byte-equal to the reference implementation: tensors by dtype (widest first), then name; header padded to 8 with spaces.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ckpt/safetensors.h"

namespace statera {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What transformers wants to see before it opens a checkpoint.
inline Metadata torch_metadata() { return {{"format", "pt"}}; }

struct TensorPlan {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;  // in elements of LibTorch's type
  uint64_t bytes() const;
};

// A file laid out before its data exists.
struct FilePlan {
  std::string header;               // length word, JSON and padding: the first bytes of the file
  std::vector<TensorInfo> tensors;  // by offset
  uint64_t bytes = 0;               // of the finished file
};
// Error(unsupported) for dtypes that files cannot hold; a repeated or empty name is a Bug.
FilePlan plan_file(std::vector<TensorPlan> tensors, const Metadata& metadata);

// The elements of t in row-major order (a copy only when t is not contiguous).
at::Tensor contiguous_bytes(const at::Tensor& t);

// Writes beside the target and renames; a failure leaves nothing behind.
void write_safetensors(const std::string& path, const NamedTensors& tensors, const Metadata& metadata = torch_metadata());

}  // namespace statera
