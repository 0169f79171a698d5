// The finished files, read again without the code that wrote them: headers parsed from their JSON, codes unpacked bit by bit.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "quant/output_plan.h"
#include "quant/recipe.h"
#include "quant/report.h"

namespace statera {

// `errors`: rounding errors by on-disk module path. Checks that every planned tensor stands in its file with dtype, shape and bytes and
// nothing else does, that all scales are finite and not zero, and that up to `sample` layers, spread over the model, decode to weights
// whose distance from the source is the recorded one. Error(bad_file) naming file and tensor.
// `rewritten`: the source's weights are no longer what was rounded (a step folded scales into them); distances are not compared.
QuantizeReport::Verification verify_output(const std::string& folder, const OutputPlan& plan, const CheckpointSource& source,
                                           const std::vector<std::pair<std::string, RoundingError>>& errors, bool rewritten,
                                           size_t sample = 8);

}  // namespace statera
