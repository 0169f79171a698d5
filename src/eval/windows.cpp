// See windows.h.
#include "eval/windows.h"

#include <algorithm>

#include "base/error.h"

namespace statera {

std::vector<Window> sliding_windows(int64_t tokens, int64_t length, int64_t stride) {
  check(stride >= 1 && stride <= length, "sliding_windows: 1 <= stride <= length");
  std::vector<Window> out;
  int64_t reached = 0;
  for (int64_t begin = 0; reached < tokens; begin += stride) {
    const int64_t end = std::min(begin + length, tokens);
    const Window w{begin, end, std::max(reached, begin + 1)};
    if (w.scored < w.end) out.push_back(w);
    reached = end;
  }
  return out;
}

}  // namespace statera
