// scales.safetensors: the scales that a run folded, by block and group, and the ranges it clipped layers to, with all that they were found
// for; and the step that folds scales again, without data (ranges are awq's to take over). Lies in the folder "calibration" of an output: engines load every *.safetensors beside config.json as weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "quant/recipe.h"
#include "quant/staging.h"

namespace statera {

constexpr const char* kScalesFolder = "calibration";
constexpr const char* kScalesName = "calibration/scales.safetensors";

struct ScaleSet {
  struct Entry {
    std::string block;  // internal path, "model.layers.3"
    ScaleRecord record;
  };
  struct Clip {
    std::string block;
    ClipRecord record;  // its tensor is a view of the file
  };
  std::string path, sha256;
  Json settings;               // what the scales were found for and with
  std::vector<Entry> entries;  // in the order of folding
  std::vector<Clip> clips = {};
};

// One f32 tensor per entry, "<block>.<group>" (with "#2" behind it where a group was scaled twice), beside it "<name>.mean" where
// scales were searched for; one u8 tensor per clipped layer, "<layer>.clip"; `settings` and ratios, losses and rho in the metadata. Written atomically and synced.
void write_scales(const std::string& path, const Json& settings, const std::vector<JournalEntry>& units);
// Error(bad_file) for what is no such file, Error(not_found).
ScaleSet read_scales(const std::string& path);
// Error(mismatch) naming the first of `keys` on which the file and this run's settings differ, with both values.
void check_scales_fit(const ScaleSet& scales, const Json& settings, const std::vector<std::string>& keys);
// The steps of a recipe that only choose scales, replaced by one that folds these, in their order. Error(usage) when there is none. A block
// whose groups do not fit is Error(mismatch).
Recipe reuse_scales(Recipe recipe, const ScaleSet& scales);

}  // namespace statera
