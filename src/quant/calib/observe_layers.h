// observe_layers: the inputs of some layers of a block, gathered in one run of the samples that goes no further than it must. For steps that
// look again while they choose; what a step watches from the start is gathered by the unit itself.
#pragma once

#include <map>

#include "quant/calib/walk.h"
#include "quant/recipe.h"

namespace statera {

// The block as it stands, from the walk's place; blocks(): the layers behind the last one.
void observe_layers(const StackWalk& walk, int64_t block, const std::map<const LinearSite*, Accumulator*>& into);

}  // namespace statera
