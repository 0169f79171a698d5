// Folded and rounded as the evaluator will hold it, where round-to-nearest is what rounds.
#include "quant/methods/mbq/settled_block.h"

#include <algorithm>

#include "quant/calib/fold.h"
#include "quant/calib/forward.h"
#include "quant/recipes/trial.h"

namespace statera {

size_t phase_of(const Topology& topology, const LinearSite& site) {
  const auto& phases = topology.phases;
  auto holds = [&](const std::vector<Linear>& phase) {
    return std::any_of(phase.begin(), phase.end(), [&](const Linear& l) { return &l.site() == &site; });
  };
  return static_cast<size_t>(std::find_if(phases.begin(), phases.end(), holds) - phases.begin());
}

SettledBlock::SettledBlock(const BlockJob& job, const Topology& topology, std::span<const FoundScale> found, size_t phase,
                           const std::optional<ActQuant>& act) {
  for (const auto& [group, record] : found) {
    for (const Linear& reader : group->readers) swap_.keep(reader.handle());
    if (group->linear) swap_.keep(group->linear.handle());
    for (const auto& norm : group->norm) swap_.keep(norm);
    fold_stored(job, *group, record.scale_C);
  }
  for (const auto& site : job.layers()) {
    const size_t own = phase_of(topology, *site);
    if (own >= phase && own < topology.phases.size()) continue;
    swap_.set(site, make_calibrated(round_to_nearest(site, job.spec(*site), site->path).q), act);
  }
}

}  // namespace statera
