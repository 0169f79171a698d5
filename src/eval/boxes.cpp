// See boxes.h.
#include "eval/boxes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"
#include "eval/answers.h"

namespace statera {
namespace {

constexpr double kLeastOverlap = 0.5;

// What stands in the first ```json fence, else the text. The closing fence may be missing: an answer may end there.
std::string_view unfenced(std::string_view text) {
  constexpr std::string_view kOpen = "```json", kClose = "```";
  const size_t open = text.find(kOpen);
  if (open == text.npos) return text;
  text.remove_prefix(open + kOpen.size());
  return text.substr(0, text.find(kClose));
}

std::optional<Box> box_of(const Json& value) {
  const Json* corners = value.find("bbox_2d");
  const Json* label = value.find("label");
  if (!corners || !corners->is_array() || corners->as_array().size() != 4 || !label || !label->is_string()) return {};
  Box out;
  for (size_t i = 0; i < 4; ++i) {
    const Json& c = corners->as_array()[i];
    if (!c.is_number() || !std::isfinite(c.as_double())) return {};
    out.corners[i] = c.as_double();
  }
  if (out.corners[2] < out.corners[0] || out.corners[3] < out.corners[1]) return {};
  out.label = ascii_lower(trim(label->as_string()));
  return out;
}

std::optional<Json> json_of(std::string_view text) {
  try {
    return Json::parse(text, "answer");
  } catch (const Error&) {
    return {};  // a model's words, not a file: no fault, but no boxes either
  }
}

// The largest sum of value[i][j] over pairings of rows with columns, one to one; a square matrix (Kuhn's Hungarian method, O(n^3)). Rows
// enter one by one; u and v are the potentials, row_of[j] the row that column j has (1-based; 0: none yet).
double best_pairing(const std::vector<std::vector<double>>& value) {
  const size_t n = value.size();
  std::vector<double> u(n + 1, 0), v(n + 1, 0);
  std::vector<size_t> row_of(n + 1, 0), before(n + 1, 0);
  for (size_t row = 1; row <= n; ++row) {
    std::vector<double> slack(n + 1, std::numeric_limits<double>::infinity());
    std::vector<char> used(n + 1, 0);
    size_t at = 0;
    for (row_of[0] = row; row_of[at] != 0;) {
      used[at] = 1;
      double least = std::numeric_limits<double>::infinity();
      size_t next = 0;
      for (size_t j = 1; j <= n; ++j) {
        if (used[j]) continue;
        const double reduced = -value[row_of[at] - 1][j - 1] - u[row_of[at]] - v[j];
        if (reduced < slack[j]) {
          slack[j] = reduced;
          before[j] = at;
        }
        if (slack[j] < least) {
          least = slack[j];
          next = j;
        }
      }
      for (size_t j = 0; j <= n; ++j) {
        if (used[j]) {
          u[row_of[j]] += least;
          v[j] -= least;
        } else {
          slack[j] -= least;
        }
      }
      at = next;
    }
    for (; at != 0; at = before[at]) row_of[at] = row_of[before[at]];
  }
  double sum = 0;
  for (size_t j = 1; j <= n; ++j) sum += value[row_of[j] - 1][j - 1];
  return sum;
}

// Best sum of worth(overlap) over pairings, over the larger number of boxes; 1 for two empty lists.
template <class F>
double paired(const std::vector<Box>& a, const std::vector<Box>& b, F&& worth) {
  const size_t n = std::max(a.size(), b.size());
  if (n == 0) return 1;
  std::vector<std::vector<double>> value(n, std::vector<double>(n, 0));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      if (a[i].label == b[j].label) value[i][j] = worth(intersection_over_union(a[i], b[j]));
    }
  }
  return best_pairing(value) / static_cast<double>(n);
}

template <class F>
double best(std::string_view prediction, const std::vector<std::string>& answers, F&& worth) {
  const auto predicted = parse_boxes(prediction);
  double out = 0;
  for (const std::string& text : answers) {
    const auto answer = parse_boxes(text);
    if (predicted && answer) out = std::max(out, paired(*predicted, *answer, worth));
  }
  return out;
}

}  // namespace

std::optional<std::vector<Box>> parse_boxes(std::string_view text) {
  const auto json = json_of(unfenced(text));
  if (!json || !(json->is_array() || json->is_object())) return {};
  std::vector<Box> out;
  for (const Json& one : json->is_array() ? json->as_array() : Json::Array{*json}) {
    auto box = box_of(one);
    if (!box) return {};
    out.push_back(std::move(*box));
  }
  return out;
}

double intersection_over_union(const Box& a, const Box& b) {
  const auto area = [](double width, double height) { return std::max(0.0, width) * std::max(0.0, height); };
  const auto& p = a.corners;
  const auto& q = b.corners;
  const double shared = area(std::min(p[2], q[2]) - std::max(p[0], q[0]), std::min(p[3], q[3]) - std::max(p[1], q[1]));
  const double all = area(p[2] - p[0], p[3] - p[1]) + area(q[2] - q[0], q[3] - q[1]) - shared;
  return shared > 0 ? shared / all : 0;
}

double box_match(std::string_view prediction, const std::vector<std::string>& answers) {
  // Sums of zeros and ones are exact, so all pairs hold where the mean is 1.
  return best(prediction, answers, [](double overlap) { return overlap >= kLeastOverlap ? 1.0 : 0.0; }) == 1 ? 1 : 0;
}

double box_overlap(std::string_view prediction, const std::vector<std::string>& answers) {
  return best(prediction, answers, [](double overlap) { return overlap; });
}

}  // namespace statera
