// From the journal's sums to the report's figures.
#pragma once

#include <vector>

#include "quant/report.h"
#include "quant/staging.h"

namespace statera {

std::vector<QuantizeReport::Layer> reported_layers(const std::vector<JournalEntry>& units);
std::vector<QuantizeReport::Scale> reported_scales(const std::vector<JournalEntry>& units);

}  // namespace statera
