// The only user of <regex>. __polynomial: breadth-first matching, so that no pattern takes exponential time (back references are refused).
#include "base/pattern.h"

#include <regex>

#include "base/error.h"

namespace statera {
namespace {
constexpr size_t kMaxText = 4096;
}

struct Pattern::Compiled {
  std::regex regex;
};

Pattern::Pattern(const std::string& expression, std::string_view what) : expression_(expression) {
  if (expression.size() > kMaxText) throw Error(ErrorKind::usage, std::string(what) + ": a regular expression of more than 4096 bytes");
  try {
    compiled_ = std::make_shared<Compiled>(Compiled{std::regex(expression, std::regex::ECMAScript | std::regex_constants::__polynomial)});
  } catch (const std::regex_error& e) {
    throw Error(ErrorKind::usage, std::string(what) + ": not a regular expression: \"" + expression + "\" (" + e.what() + ")");
  }
}

bool Pattern::found_in(std::string_view text) const {
  return text.size() <= kMaxText && std::regex_search(text.begin(), text.end(), compiled_->regex);
}

bool Pattern::matches_start(std::string_view text) const {
  return text.size() <= kMaxText && std::regex_search(text.begin(), text.end(), compiled_->regex, std::regex_constants::match_continuous);
}

bool Pattern::matches(std::string_view text) const { return text.size() <= kMaxText && std::regex_match(text.begin(), text.end(), compiled_->regex); }

}  // namespace statera
