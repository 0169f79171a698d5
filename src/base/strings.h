// Small text helpers shared by messages everywhere: nearest name, byte sizes, splitting, UTF-8 boundaries.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace statera {

// The candidate with the smallest edit distance to `name`, empty when none is near (distance > max(2, length/3)).
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);
// "; did you mean \"x\"?" or "".
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);
// 1536 -> "1.50 KiB".
std::string human_bytes(double bytes);
// 1234567 -> "1.23 M".
std::string human_count(double count);
// 75.2 s -> "1m15s".
std::string human_seconds(double seconds);
std::vector<std::string> split(std::string_view text, char separator);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string_view trim(std::string_view text);
bool starts_with_any(std::string_view text, const std::vector<std::string>& prefixes);
// [2, 3, 4] -> "[2, 3, 4]".
template <class Range>
std::string shape_string(const Range& shape) {
  std::string out = "[";
  for (auto d : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(d);
  return out + "]";
}
// Length of the longest prefix of `text` that ends on a UTF-8 character boundary.
size_t complete_utf8_prefix(std::string_view text);

}  // namespace statera
