// The finished files, read again without the code that wrote them: headers parsed from their JSON, codes unpacked bit by bit.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "quant/output_plan.h"
#include "quant/recipe.h"
#include "quant/report.h"

namespace statera {

// What was written, as the journal knows it.
struct Written {
  std::vector<std::pair<std::string, RoundingError>> errors;  // by on-disk module path
  std::vector<std::pair<std::string, uint64_t>> checksums;    // of every tensor, by its name in the files (checksum.h)
};

// Checks that every planned tensor stands in its file with dtype, shape and bytes and nothing else does, that each one's bytes have the checksum
// they were written with, that all scales are finite and not zero, and that up to `sample` layers, spread over the model, decode to
// weights whose distance from the source is the recorded one. Error(bad_file) naming file and tensor.
// `rewritten`: the source's weights are no longer what was rounded (a step folded scales into them); distances are not compared.
QuantizeReport::Verification verify_output(const std::string& folder, const OutputPlan& plan, const CheckpointSource& source,
                                           const Written& written, bool rewritten, size_t sample = 8);

}  // namespace statera
