// Boxes read from answers of every shape, and their scores by hand.
#include "eval/boxes.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/strings.h"

namespace statera {
namespace {

std::string box(int left, int top, int right, int bottom, const std::string& label) {
  return fmt::format(R"({{"bbox_2d": [{}, {}, {}, {}], "label": "{}"}})", left, top, right, bottom, label);
}
std::string list(const std::vector<std::string>& boxes) { return "[" + join(boxes, ", ") + "]"; }

TEST(ParseBoxes, ReadsListsSingleObjectsAndFences) {
  const std::string one = box(490, 47, 719, 219, " Red circle ");
  for (const std::string& text : {one, "[" + one + "]", "```json\n[\n\t" + one + "\n]\n```", "Here it is:\n```json\n" + one + "```\nAnything else?",
                                  "```json\n[" + one + "]", " [" + one + "]\n"}) {
    const auto boxes = parse_boxes(text);
    ASSERT_TRUE(boxes && boxes->size() == 1) << text;
    EXPECT_EQ(boxes->front().label, "red circle");
    EXPECT_EQ(boxes->front().corners, (std::array<double, 4>{490, 47, 719, 219}));
  }
  EXPECT_EQ(parse_boxes(list({box(0, 0, 1, 1, "a"), box(0, 0, 2, 2, "a")}))->size(), 2u);
  EXPECT_TRUE(parse_boxes("[]") && parse_boxes("[]")->empty());
  EXPECT_EQ(parse_boxes(R"([{"label": "a", "bbox_2d": [0.5, 0, 1.5, 2], "score": 1}])")->front().corners[2], 1.5);
}

TEST(ParseBoxes, NothingElseIsAListOfBoxes) {
  for (const char* text : {"", "red circle", "[1, 2, 3, 4]", R"([{"bbox_2d": [1, 2, 3], "label": "a"}])", R"([{"bbox_2d": [1, 2, 3, 4]}])",
                           R"([{"label": "a"}])", R"([{"bbox_2d": [1, 2, 3, "4"], "label": "a"}])", R"([{"bbox_2d": [3, 2, 1, 4], "label": "a"}])",
                           R"([{"bbox_2d": [1, 4, 3, 2], "label": "a"}])", R"([{"bbox_2d": [1, 2, 3, 4], "label": 7}])",
                           R"([{"bbox_2d": [1, 2, 3, 4], "label": "a"}, 5])", R"([{"bbox_2d": [1, 2, 3, 4], "label": "a"})",
                           R"([{"bbox_2d": [1, 2, 3, 4], "label": "a"}] there)", "3", "null", "\"a\"", "```json\n```",
                           R"([{"bbox_2d": [1, 2, 1e999, 4], "label": "a"}])"}) {
    EXPECT_FALSE(parse_boxes(text)) << text;
  }
}

TEST(IntersectionOverUnion, ByHand) {
  const auto iou = [](std::array<double, 4> a, std::array<double, 4> b) { return intersection_over_union({a, ""}, {b, ""}); };
  EXPECT_EQ(iou({0, 0, 10, 10}, {0, 0, 10, 10}), 1);
  EXPECT_EQ(iou({0, 0, 10, 10}, {0, 0, 10, 5}), 0.5);
  EXPECT_DOUBLE_EQ(iou({0, 0, 10, 10}, {5, 5, 15, 15}), 25.0 / 175);
  EXPECT_EQ(iou({0, 0, 10, 10}, {10, 0, 20, 10}), 0) << "they touch";
  EXPECT_EQ(iou({0, 0, 10, 10}, {20, 20, 30, 30}), 0) << "apart on both axes";
  EXPECT_EQ(iou({5, 5, 5, 5}, {5, 5, 5, 5}), 0) << "no area";
}

TEST(BoxMatch, HalfOverlapUnderTheSameLabel) {
  const std::vector<std::string> truth{list({box(0, 0, 100, 100, "red circle")})};
  EXPECT_EQ(box_match(list({box(0, 0, 100, 50, "Red Circle")}), truth), 1) << "exactly one half";
  EXPECT_EQ(box_match(list({box(0, 0, 100, 49, "red circle")}), truth), 0);
  EXPECT_EQ(box_match(list({box(0, 0, 100, 100, "blue circle")}), truth), 0);
  EXPECT_EQ(box_match("nowhere", truth), 0);
  EXPECT_EQ(box_match(list({box(0, 0, 100, 100, "red circle")}), {list({box(0, 0, 1, 1, "a")}), truth[0]}), 1) << "best over the answers";
  EXPECT_EQ(box_match("[]", {"[]"}), 1);
  EXPECT_EQ(box_match("[]", truth), 0);
}

TEST(BoxMatch, EveryBoxHasAPartnerOfItsOwn) {
  const std::string left = box(0, 0, 100, 100, "cross"), right = box(200, 0, 300, 100, "cross");
  const std::vector<std::string> truth{list({left, right})};
  EXPECT_EQ(box_match(list({right, left}), truth), 1) << "in any order";
  EXPECT_EQ(box_match(list({left, left}), truth), 0) << "the same one twice";
  EXPECT_EQ(box_match(list({left}), truth), 0);
  EXPECT_EQ(box_match(list({left, right, box(0, 0, 9, 9, "cross")}), truth), 0) << "one too many";
  EXPECT_DOUBLE_EQ(box_overlap(list({left}), truth), 0.5);
  EXPECT_DOUBLE_EQ(box_overlap(list({left, right, box(0, 0, 9, 9, "cross")}), truth), 2.0 / 3);
}

TEST(BoxMatch, PairsAreChosenTogetherNotOneByOne) {
  // The first prediction lies on both boxes, the second on the first box only: taking the best pair first leaves the second without one.
  const std::vector<std::string> truth{list({box(0, 0, 100, 100, "a"), box(0, 0, 100, 150, "a")})};
  const std::string wide = box(0, 0, 100, 110, "a"), small = box(0, 0, 100, 60, "a");
  EXPECT_EQ(box_match(list({wide, small}), truth), 1);
  EXPECT_DOUBLE_EQ(box_overlap(list({wide, small}), truth), (110.0 / 150 + 0.6) / 2);
  // What has most overlap in all need not be what has half everywhere: 1 + 0.25 against 0.5 + 0.5.
  const std::vector<std::string> other{list({box(0, 0, 100, 100, "a"), box(0, 0, 100, 200, "a")})};
  const std::string same = box(0, 0, 100, 100, "a"), half = box(0, 0, 100, 50, "a");
  EXPECT_EQ(box_match(list({same, half}), other), 1);
  EXPECT_DOUBLE_EQ(box_overlap(list({same, half}), other), (1 + 0.25) / 2);
}

TEST(BoxOverlap, IsTheBestOfAllPairings) {
  // Five boxes of one label, all pairings tried by hand.
  std::vector<std::string> truth, guess;
  std::vector<Box> t, g;
  for (int i = 0; i < 5; ++i) {
    truth.push_back(box(20 * i, 0, 20 * i + 50 + 7 * i, 60, "a"));
    guess.push_back(box(90 - 17 * i, 5 * i, 150 - 11 * i, 80, "a"));
    t.push_back(parse_boxes(truth.back())->front());
    g.push_back(parse_boxes(guess.back())->front());
  }
  std::vector<size_t> order{0, 1, 2, 3, 4};
  double best = 0;
  do {
    double sum = 0;
    for (size_t i = 0; i < 5; ++i) sum += intersection_over_union(g[i], t[order[i]]);
    best = std::max(best, sum);
  } while (std::next_permutation(order.begin(), order.end()));
  EXPECT_NEAR(box_overlap(list(guess), {list(truth)}), best / 5, 1e-12);
}

}  // namespace
}  // namespace statera
