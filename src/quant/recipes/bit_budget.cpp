// Convex hulls and one sorted list of their steps.
#include "quant/recipes/bit_budget.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace statera {
namespace {

struct Upgrade {
  size_t set = 0, to = 0;
  uint64_t bytes = 0;  // more than before
  double saved = 0;    // error per byte
};

// Steps of a set, each saving less per byte than the one before.
void add_upgrades(const BitLevels& levels, size_t set, std::vector<Upgrade>& out) {
  size_t at = 0;
  while (true) {
    Upgrade best;
    for (size_t to = at + 1; to < levels.size(); ++to) {
      const uint64_t bytes = levels[to].bytes - levels[at].bytes;
      const double saved = (levels[at].error - levels[to].error) / static_cast<double>(bytes);
      if (saved > 0 && saved >= best.saved) best = {set, to, bytes, saved};
    }
    if (best.saved <= 0) return;
    out.push_back(best);
    at = best.to;
  }
}

}  // namespace

std::vector<size_t> spend_bits(std::span<const BitLevels> sets, uint64_t budget_bytes) {
  uint64_t spent = 0;
  std::vector<Upgrade> upgrades;
  for (size_t s = 0; s < sets.size(); ++s) {
    check(!sets[s].empty(), "a set without levels");
    for (size_t i = 0; i < sets[s].size(); ++i) {
      check(i == 0 || sets[s][i - 1].bytes < sets[s][i].bytes, "levels whose bytes do not rise");
      check(std::isfinite(sets[s][i].error), "a level without a finite error");
    }
    spent += sets[s][0].bytes;
    add_upgrades(sets[s], s, upgrades);
  }
  if (spent > budget_bytes) {
    throw Error(ErrorKind::usage, "the fewest bits take " + std::to_string(spent) + " bytes, " + std::to_string(budget_bytes) + " are allowed");
  }
  std::stable_sort(upgrades.begin(), upgrades.end(), [](const Upgrade& a, const Upgrade& b) { return a.saved > b.saved; });
  std::vector<size_t> chosen(sets.size(), 0);
  for (size_t from = 0; from < upgrades.size();) {
    size_t to = from;
    uint64_t bytes = 0;
    for (; to < upgrades.size() && upgrades[to].saved == upgrades[from].saved; ++to) bytes += upgrades[to].bytes;
    if (spent + bytes > budget_bytes) break;
    spent += bytes;
    for (; from < to; ++from) chosen[upgrades[from].set] = upgrades[from].to;
  }
  return chosen;
}

}  // namespace statera
