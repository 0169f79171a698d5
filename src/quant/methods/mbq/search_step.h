// The scale search of AWQ and MBQ as a step: gathers the inputs of a block's scale groups, replays the part of the block that each group
// feeds under every candidate (mbq.md 2.5), and folds the winners once all groups are searched. Rounding is another step's matter.
#pragma once

#include <memory>
#include <optional>

#include "quant/recipe.h"

namespace statera {

struct ScaleSearch {
  MbqSettings loss;
  std::optional<ActQuant> act;  // candidates quantize inputs, too (mbq with 8-bit activations)
  int64_t search_tokens = 4096, data_tokens = 0;
  uint64_t seed = 0;
};
// Groups whose replay is their one reader are judged on the exact gram of all rows where the loss is an unweighted squared error and the
// gram is cheaper than the rows; others on about search_tokens rows, attentions on whole sequences of about as many tokens in all.
std::unique_ptr<Step> make_scale_search(const ScaleSearch& settings);

}  // namespace statera
