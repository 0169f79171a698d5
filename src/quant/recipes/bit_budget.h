// How many bits each set of layers gets when the whole may take a number of bytes. Pure: no model, no weights.
// Every set's levels are thinned to the lower convex hull of error over bytes, and its steps are taken in order of error saved per byte until
// the first that no longer fits. So the result has the least error of all choices that take no more bytes than it does, more budget
// never means more error, and steps that save exactly the same per byte are taken all or none: equal sensitivities give equal bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace statera {

struct BitLevel {
  int bits = 0;
  uint64_t bytes = 0;
  double error = 0;
};

// Levels of one set, bytes strictly rising.
using BitLevels = std::vector<BitLevel>;

// For each set the index of its level. Error(usage) naming the least number of bytes when the first levels together exceed the budget.
std::vector<size_t> spend_bits(std::span<const BitLevels> sets, uint64_t budget_bytes);

}  // namespace statera
