// What servers and libraries refuse to load, as rules over a plan: known before any work. Facts and their sources: docs/recipes.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/output_plan.h"

namespace statera {

// "vllm", "transformers", "llama.cpp".
const std::vector<std::string>& known_targets();

struct Refusal {
  std::string target;
  std::string reason;  // names a layer, and how many more there are
};

// Every rule that the plan breaks, one entry each. Error(usage): an unknown target, naming the nearest.
std::vector<Refusal> refusals(const OutputPlan& plan, std::string_view target);

}  // namespace statera
