// The only user of <regex> here. Compiled patterns are kept, for a config asks the same few about every layer.
#include "ckpt/name_pattern.h"

#include <memory>
#include <regex>
#include <unordered_map>

#include "base/error.h"

namespace statera {
namespace {

constexpr size_t kMaxPattern = 2000, kMaxName = 1000, kMaxKept = 512;

const std::regex& compiled(const std::string& text) {
  thread_local std::unordered_map<std::string, std::unique_ptr<std::regex>> kept;
  if (auto it = kept.find(text); it != kept.end()) return *it->second;
  if (kept.size() >= kMaxKept) kept.clear();
  try {
    // __polynomial: breadth-first matching, so that no pattern takes exponential time (and back references are refused).
    auto regex = std::make_unique<std::regex>(text, std::regex::ECMAScript | std::regex_constants::__polynomial);
    return *(kept[text] = std::move(regex));
  } catch (const std::regex_error&) {
    throw Error(ErrorKind::unsupported, "pattern \"re:" + text + "\" cannot be understood");
  }
}

}  // namespace

bool name_matches(std::string_view pattern, std::string_view name) {
  if (!pattern.starts_with("re:")) return pattern == name;
  pattern.remove_prefix(3);
  if (pattern.size() > kMaxPattern)
    throw Error(ErrorKind::unsupported, "a pattern of " + std::to_string(pattern.size()) + " characters is too long");
  if (name.size() > kMaxName) return false;
  return std::regex_search(name.begin(), name.end(), compiled(std::string(pattern)), std::regex_constants::match_continuous);
}

}  // namespace statera
