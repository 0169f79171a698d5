// What stands between settings and a settled plan, and between a plan and its description: bits by layer, servers' rules, the list of
// tensors. Used by the pipeline before it begins.
#pragma once

#include <string>
#include <vector>

#include "quant/pipeline.h"
#include "quant/plan_details.h"
#include "quant/recipes/sensitivity.h"

namespace statera {

// The bits of each layer that settings.target_bits buys; nullopt without. `scratch`: a folder that does not exist yet, in which the samples'
// activations lie meanwhile. The errors of choose_bits().
std::optional<BitChoice> chosen_bits(const Model& model, const CheckpointSource& source, const QuantizeSettings& settings,
                                     const std::string& scratch, const QuantizeHooks& hooks);

// Error(unsupported) with every rule of settings.targets that the plan breaks. Without targets: one warning per rule of those that read
// the format at all.
std::vector<std::string> check_targets(const OutputPlan& plan, const QuantizeSettings& settings);

// state_bytes: what calibration keeps on disk meanwhile.
PlanDetails plan_details(const OutputPlan& plan, const CheckpointSource& source, const QuantizeSettings& settings, uint64_t output_bytes,
                         uint64_t state_bytes);

}  // namespace statera
