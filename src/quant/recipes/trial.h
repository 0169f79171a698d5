// Trial: one layer rounded to nearest by the method of the table, outside any block: for measuring what bits cost and how fast this is.
#pragma once

#include <memory>

#include "quant/recipe.h"

namespace statera {

struct Trial {
  QTensor q;
  RoundingError error;
};

// Error(bad_file) "<place>: holds NaN or infinite weights".
Trial round_to_nearest(const std::shared_ptr<LinearSite>& site, const QSpec& spec, const std::string& place);

}  // namespace statera
