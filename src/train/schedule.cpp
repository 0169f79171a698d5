// See schedule.h.
#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/error.h"
#include "base/strings.h"

namespace statera {

void check_schedule(const std::string& kind) {
  static const std::vector<std::string> known{"cosine", "linear", "constant"};
  if (std::find(known.begin(), known.end(), kind) == known.end())
    throw Error(ErrorKind::usage, "--schedule must be cosine, linear or constant, is \"" + kind + "\"" + did_you_mean(kind, known));
}

double Schedule::factor(int64_t step) const {
  if (step < warmup) return static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup));
  const double rest = static_cast<double>(std::max<int64_t>(1, total - warmup));
  if (kind == "linear") return std::max(0.0, static_cast<double>(total - step) / rest);
  if (kind == "cosine") return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(step - warmup) / rest)));
  return 1;
}

}  // namespace statera
