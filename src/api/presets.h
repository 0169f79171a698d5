// presets: config.json of released models, for making checkpoints of their shapes. Sizes only: no weights, no tokenizer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace statera {

std::vector<std::string> preset_names();
// Error(not_found) naming the nearest preset.
Json preset_config(std::string_view name);
// The config that `name` means: a config.json, a folder that holds one, or a preset. The errors of reading it, and preset_config's.
Json config_or_preset(const std::string& name);

}  // namespace statera
