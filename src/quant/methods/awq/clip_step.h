// AWQ's second search as a step of its own, after the scales: weights clamped to ranges that cost the layer's output least (algo.h, awq_clip).
#pragma once

#include <memory>

#include "quant/recipe.h"

namespace statera {

std::unique_ptr<Step> make_awq_clip();

}  // namespace statera
