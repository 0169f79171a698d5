// The recipe of a run as it counts in the end: the form of a recipe file (recipe_file.h), every setting written out.
#pragma once

#include "base/json.h"
#include "quant/pipeline.h"

namespace statera {

Json resolved_recipe(const QuantizeSettings& settings);

}  // namespace statera
