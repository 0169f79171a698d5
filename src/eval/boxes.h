// Boxes as Qwen3-VL writes them, read from answers and compared. Pure functions over text; other forms of boxes are not known here.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace statera {

struct Box {
  std::array<double, 4> corners{};  // left, top, right, bottom
  std::string label;                // trimmed, ASCII letters small
};

// [{"bbox_2d": [490, 47, 719, 219], "label": "red circle"}, ...], one such object, or either in a ```json fence (then text outside the fence
// counts for nothing). nullopt for anything else: broken JSON, no or wrong corners, right before left, no label. Other members are ignored.
std::optional<std::vector<Box>> parse_boxes(std::string_view text);

// Intersection over union; 0 for boxes without area.
double intersection_over_union(const Box& a, const Box& b);

// 1 when predicted and true boxes can be paired off, all of them, one to one, with equal labels and an overlap (intersection over union) of
// at least 0.5; else 0. Best over the answers; 0 for a prediction that is no list of boxes. Empty lists are equal.
double box_match(std::string_view prediction, const std::vector<std::string>& answers);

// Overlap of the pairs, by the pairing (one to one, equal labels) that has most of it, over the larger number of boxes: a box too many counts
// as a missed one does. Best over the answers.
double box_overlap(std::string_view prediction, const std::vector<std::string>& answers);

}  // namespace statera
