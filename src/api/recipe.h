// A recipe file laid under the options that were given: what stands in both is as the options say.
#pragma once

#include <string>
#include <vector>

#include "api/quantize.h"

namespace statera {

// Reads options.recipe, if any, into `options` and returns notes for the user. Given are options named in options.given and those that
// differ from their default. Exceptions of both count, the file's first. Errors: those of read_recipe, and values of another kind.
std::vector<std::string> apply_recipe(QuantizeOptions& options);

}  // namespace statera
