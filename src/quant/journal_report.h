// From the journal's sums to the report's figures.
#pragma once

#include <vector>

#include "quant/output_plan.h"
#include "quant/report.h"
#include "quant/staging.h"

namespace statera {

std::vector<QuantizeReport::Layer> reported_layers(const std::vector<JournalEntry>& units);
// Of a run with samples; nothing when no expert is quantized.
std::optional<QuantizeReport::Experts> reported_experts(const std::vector<JournalEntry>& units, const OutputPlan& plan);
// What to say of experts that no token reached, when there are any.
std::string unreached_warning(const QuantizeReport::Experts& experts);
std::vector<QuantizeReport::Scale> reported_scales(const std::vector<JournalEntry>& units);

}  // namespace statera
