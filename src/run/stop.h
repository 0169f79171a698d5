// StopMatcher: finds stop strings in text that arrives in pieces. Text is held back while it could still become part of one;
// what has been given out never has to be taken back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace statera {

class StopMatcher {
 public:
  // Empty strings are Error(usage).
  explicit StopMatcher(std::vector<std::string> stops = {});
  // The text that is safe to give out. After a match (the one that ends first, the longest of these): what stood before it, and
  // nothing from then on.
  std::string feed(std::string_view piece);
  // The end of the text: what was held back.
  std::string flush();
  bool stopped() const { return stopped_; }
  const std::string& match() const { return match_; }  // the stop string found

 private:
  std::vector<std::string> stops_;
  std::string held_, match_;
  bool stopped_ = false;
};

}  // namespace statera
