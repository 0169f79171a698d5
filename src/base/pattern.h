// Pattern: a regular expression (ECMAScript, as std::regex has it), compiled once. The only way to one in this program.
// Texts longer than 4096 bytes never match: std::regex recurses per character.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace statera {

class Pattern {
 public:
  // Error(usage) "what: not a regular expression: ..." for a malformed one.
  explicit Pattern(const std::string& expression, std::string_view what = "pattern");
  bool found_in(std::string_view text) const;      // anywhere
  bool matches_start(std::string_view text) const; // anchored at the start, as Python's re.match
  bool matches(std::string_view text) const;       // the whole text
  const std::string& expression() const { return expression_; }

 private:
  struct Compiled;
  std::string expression_;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace statera
