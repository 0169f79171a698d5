// Compiled patterns are kept, for a config asks the same few about every layer.
#include "ckpt/name_pattern.h"

#include <unordered_map>

#include "base/error.h"
#include "base/pattern.h"

namespace statera {
namespace {

constexpr size_t kMaxPattern = 2000, kMaxKept = 512;

const Pattern& compiled(const std::string& text) {
  thread_local std::unordered_map<std::string, Pattern> kept;
  if (auto it = kept.find(text); it != kept.end()) return it->second;
  if (kept.size() >= kMaxKept) kept.clear();
  try {
    return kept.emplace(text, Pattern(text)).first->second;
  } catch (const Error&) {
    throw Error(ErrorKind::unsupported, "pattern \"re:" + text + "\" cannot be understood");
  }
}

}  // namespace

bool name_matches(std::string_view pattern, std::string_view name) {
  if (!pattern.starts_with("re:")) return pattern == name;
  pattern.remove_prefix(3);
  if (pattern.size() > kMaxPattern)
    throw Error(ErrorKind::unsupported, "a pattern of " + std::to_string(pattern.size()) + " characters is too long");
  return compiled(std::string(pattern)).matches_start(name);
}

}  // namespace statera
