// AWQ's second search as a step of its own, after the scales: weights clamped to ranges that cost the layer's output least (algo.h,
// awq_shrink).
#pragma once

#include <memory>

#include "quant/recipe.h"

namespace statera {

// stored: the ranges of that file in place of a search, without data. Error(mismatch) in apply() where they are not those of the block's layers.
std::unique_ptr<Step> make_awq_clip(const ScaleSet* stored);

}  // namespace statera
