// SettledBlock: a block as far as it is settled while its later scale groups are still searched under distort (mbq.md 2.8): scales found
// so far folded, layers before a phase rounded to nearest, for as long as the object lives.
// differs: the published code rounds all layers of the block here; those of the phase and behind it do not reach what is observed.
#pragma once

#include <span>

#include "quant/recipe.h"
#include "quant/weight_swap.h"

namespace statera {

// The phase of the topology that a layer belongs to; phases.size(): none.
size_t phase_of(const Topology& topology, const LinearSite& site);

struct FoundScale {
  const ScaleGroup* group;
  ScaleRecord record;
};

class SettledBlock {
 public:
  // Layers in no phase are rounded. act: what rounded layers do to their inputs. Errors of fold_stored() and round_to_nearest().
  SettledBlock(const BlockJob& job, const Topology& topology, std::span<const FoundScale> found, size_t phase, const std::optional<ActQuant>& act);

 private:
  WeightSwap swap_;
};

}  // namespace statera
