// adapter_files: reading and writing adapters as PEFT lays them out. Includes torch.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "train/lora.h"

namespace statera {

// adapter_model.safetensors (names "base_model.model.<path>.lora_A.weight") and adapter_config.json. base: the checkpoint it belongs to.
void write_adapter(const std::string& folder, const std::vector<Parameter>& parameters, const LoraSettings& settings, const std::string& base);

struct AdapterFile {
  std::string base;                       // base_model_name_or_path
  std::map<std::string, Adapter> layers;  // by path, in the model's internal names
};
AdapterFile read_adapter(const std::string& folder);

}  // namespace statera
