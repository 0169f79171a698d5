// See answers.h. The normalisation of VQA accuracy is in vqa_normalize.cpp.
#include "eval/answers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/strings.h"
#include "eval/boxes.h"

namespace statera {
namespace {

std::optional<double> number(std::string_view text) {
  text = trim(text);
  const bool percent = text.ends_with('%');
  if (percent) text.remove_suffix(1);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return {};
  return percent ? value / 100 : value;
}

double relaxed(std::string_view prediction, std::string_view answer) {
  constexpr double kTolerance = 0.05;
  const auto p = number(prediction), a = number(answer);
  if (p && a && *a != 0) return std::fabs(*p - *a) / std::fabs(*a) <= kTolerance;
  return ascii_lower(trim(prediction)) == ascii_lower(trim(answer));
}

std::vector<char32_t> characters(std::string_view text) {
  std::vector<char32_t> out;
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    char32_t code = c;
    size_t used = 1;
    for (; used < length && i + used < text.size() && (text[i + used] & 0xC0) == 0x80; ++used)
      code = code << 8 | static_cast<unsigned char>(text[i + used]);
    out.push_back(code);
    i += used;
  }
  return out;
}

// Lower case, words with one blank between.
std::string plain(std::string_view text) {
  std::string out;
  for (char c : ascii_lower(text)) {
    if (trim(std::string_view(&c, 1)).empty()) c = ' ';
    if (c != ' ' || (!out.empty() && out.back() != ' ')) out += c;
  }
  return std::string(trim(out));
}

double similarity(const std::string& a, const std::string& b) {
  constexpr double kThreshold = 0.5;
  const size_t longer = std::max(characters(a).size(), characters(b).size());
  if (longer == 0) return 1;
  const double s = 1 - static_cast<double>(edit_distance(a, b)) / static_cast<double>(longer);
  return s < kThreshold ? 0 : s;
}

template <class F>
double best(const std::vector<std::string>& answers, F&& score) {
  double out = 0;
  for (const std::string& a : answers) out = std::max(out, static_cast<double>(score(a)));
  return out;
}

bool is_boxes(std::string_view answer) { return parse_boxes(answer).has_value(); }

constexpr AnswerMetric kMetrics[] = {
    {.name = "exact", .score = exact_match},
    {.name = "relaxed", .score = relaxed_match},
    {.name = "anls", .score = anls},
    {.name = "vqa", .score = vqa_accuracy},
    {.name = "iou", .score = box_match, .also_name = "mean_iou", .also = box_overlap, .accepts = is_boxes, .expected = "a JSON list of {bbox_2d, label}"},
};

}  // namespace

std::string ascii_lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

double exact_match(std::string_view prediction, const std::vector<std::string>& answers) {
  return best(answers, [&](const std::string& a) { return ascii_lower(trim(prediction)) == ascii_lower(trim(a)); });
}

double relaxed_match(std::string_view prediction, const std::vector<std::string>& answers) {
  return best(answers, [&](const std::string& a) { return relaxed(prediction, a); });
}

double anls(std::string_view prediction, const std::vector<std::string>& answers) {
  return best(answers, [&](const std::string& a) { return similarity(plain(prediction), plain(a)); });
}

double vqa_accuracy(std::string_view prediction, const std::vector<std::string>& answers) {
  const std::string p = vqa_normalize(prediction);
  std::vector<int> match;
  for (const std::string& a : answers) match.push_back(vqa_normalize(a) == p);
  const int all = std::accumulate(match.begin(), match.end(), 0);
  const auto n = static_cast<int>(match.size());
  if (n < 4) return n == 0 ? 0 : std::min(1.0, static_cast<double>(all) / n);
  double sum = 0;
  for (int m : match) sum += std::min(1.0, (all - m) / 3.0);
  return sum / n;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  const std::vector<char32_t> x = characters(a), y = characters(b);
  std::vector<size_t> row(y.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < x.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < y.size(); ++j) {
      const size_t replaced = diagonal + (x[i] != y[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::span<const AnswerMetric> answer_metrics() { return kMetrics; }

const AnswerMetric* answer_metric(std::string_view name) {
  const auto found = std::ranges::find(kMetrics, name, &AnswerMetric::name);
  return found == std::ranges::end(kMetrics) ? nullptr : found;
}

}  // namespace statera
