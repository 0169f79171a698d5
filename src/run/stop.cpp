// See stop.h.
#include "run/stop.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace statera {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const auto& s : stops_) {
    if (s.empty()) throw Error(ErrorKind::usage, "stop: an empty string");
  }
}

std::string StopMatcher::feed(std::string_view piece) {
  if (stopped_) return "";
  held_ += piece;
  size_t end = held_.npos, begin = 0;
  for (const auto& s : stops_) {
    size_t at = held_.find(s);
    if (at == held_.npos) continue;
    if (end == held_.npos || at + s.size() < end || (at + s.size() == end && at < begin)) {
      begin = at;
      end = at + s.size();
      match_ = s;
    }
  }
  if (end != held_.npos) {
    stopped_ = true;
    std::string out = held_.substr(0, begin);
    held_.clear();
    return out;
  }
  size_t keep = 0;  // longest suffix that begins a stop string
  for (const auto& s : stops_) {
    for (size_t n = std::min(held_.size(), s.size() - 1); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(s).substr(0, n)) keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::flush() { return std::exchange(held_, {}); }

}  // namespace statera
