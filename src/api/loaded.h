// loaded: a checkpoint and the model made of it. For the .cpp files of api/ only: includes torch.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/load.h"
#include "ckpt/checkpoint.h"
#include "ckpt/checkpoint_source.h"
#include "nn/model.h"

namespace statera {

struct Loaded {
  Checkpoint checkpoint;
  std::unique_ptr<Model> model;
  double mapped_seconds = 0, made_seconds = 0;  // opening the files; making the model, which packs quantized weights
};

// Opens a checkpoint directory and makes its model; weights are mapped, not read. Errors: what Checkpoint::open says; Error(unsupported)
// for an unknown model_type, quantization or a weight that is no known type; Error(bad_file) for missing or misshapen tensors;
// Error(usage) for an unknown dtype or compute; Error(unsupported) where compute is "int8" and the weights cannot. Tensors that the model does not use are logged as one warning.
// `through`: makes a source around the checkpoint's, from which the model then takes its weights.
using ThroughSource = std::function<std::unique_ptr<WeightSource>(WeightSource& checkpoint, const ModelType& type, const Json& config)>;
Loaded open_model(const std::string& directory, const LoadOptions& options, const ThroughSource& through = {});
// What every inference needs once: Error(usage) for a wrong STATERA_ISA, and LibTorch's own threads left at one.
void prepare_inference();

// "fp32", "bf16", "fp16" (and torch's spellings); Error(usage) otherwise.
at::ScalarType parse_dtype(std::string_view name);
// What a config says about its weights: "dtype" or "torch_dtype", of text_config too.
std::optional<at::ScalarType> stated_dtype(const Json& config);
// stated_dtype of the config, else bf16 or fp16 when the files hold it, else fp32.
at::ScalarType stored_dtype(const Checkpoint& checkpoint);

}  // namespace statera
