// See slices.h.
#include "train/slices.h"

#include <algorithm>

namespace statera {

Slice slice_of(int64_t elements, int64_t rank, int64_t world) {
  const int64_t grains = (elements + kSliceGrain - 1) / kSliceGrain;
  auto border = [&](int64_t r) { return std::min(elements, grains * r / world * kSliceGrain); };
  return {border(rank), border(rank + 1)};
}

std::vector<std::pair<size_t, size_t>> buckets(const std::vector<int64_t>& bytes, int64_t limit) {
  std::vector<std::pair<size_t, size_t>> out;
  int64_t held = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (out.empty() || held + bytes[i] > limit) {
      out.emplace_back(i, i);
      held = 0;
    }
    held += bytes[i];
    out.back().second = i + 1;
  }
  return out;
}

}  // namespace statera
