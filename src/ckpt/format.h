// Format: how quantized linear layers lie in a checkpoint: reading to a weight, planning, encoding, and the quantization_config that
// says so. One file of formats/ per entry, gathered into formats(). No arithmetic of quantization (nn/qtensor.h), no choice of layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "ckpt/checkpoint.h"
#include "ckpt/safetensors_write.h"
#include "nn/qtensor.h"
#include "nn/weight.h"

namespace statera {

// A linear layer as it will stand in a file.
struct StoredLinear {
  std::string path;  // module name on disk, without ".weight"
  int64_t out = 0, in = 0;
  QSpec spec;
  std::optional<ActQuant> act;  // none: floating activations. A static scale that is written must be a number of scale_dtype
  at::ScalarType scale_dtype = at::kBFloat16;
};

struct Format {
  const char* name;
  // Whether a quantization_config is this format's. One that is, but holds something unsupported, throws from read.
  bool (*claims)(const Json& quantization_config);
  // What is stored for the module `disk_path`, checked by shapes and config without touching codes and scales of weights; nullopt when the layer is not
  // quantized. The errors of read.
  std::optional<StoredLinear> (*describe)(const Checkpoint& checkpoint, const Json& quantization_config, const std::string& disk_path,
                                          int64_t out, int64_t in);
  // The weight of the module `disk_path`, and its activation quantizer. Null when this layer is not quantized (its ".weight" is
  // floating). Error(bad_file) for tensors that do not fit shapes or config, Error(unsupported) for what cannot be handled.
  Weight (*read)(const Checkpoint& checkpoint, const Json& quantization_config, const std::string& disk_path, int64_t out, int64_t in,
                 std::optional<ActQuant>& act);
  // Tensors that a layer takes, in order. Error(unsupported) when the format cannot hold it.
  std::vector<TensorPlan> (*plan)(const StoredLinear& linear);
  // The planned tensors of a layer.
  NamedTensors (*encode)(const StoredLinear& linear, const QTensor& q);
  // The quantization_config of a checkpoint with these layers; `ignore`: linear layers on disk that stay floating.
  Json (*quantization_config)(const std::vector<StoredLinear>& linears, const std::vector<std::string>& ignore);
};

// Generated from the files of src/ckpt/formats/.
std::span<const Format* const> formats();
// Error(usage) naming the nearest format when there is none of that name.
const Format& format_named(std::string_view name);
// The format of a quantization_config; Error(unsupported) naming its quant_method when none claims it.
const Format& format_of(const Json& quantization_config, std::string_view where);

}  // namespace statera
