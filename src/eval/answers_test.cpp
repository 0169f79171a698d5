// Metrics of answers by hand, and the official normalisation on cases that its rules decide one by one.
#include "eval/answers.h"

#include <gtest/gtest.h>

namespace statera {
namespace {

using Answers = std::vector<std::string>;

TEST(ExactMatch, IgnoresCaseAndOuterBlanksOnly) {
  EXPECT_EQ(exact_match(" Red\n", {"blue", "red"}), 1);
  EXPECT_EQ(exact_match("red.", {"red"}), 0);
  EXPECT_EQ(exact_match("a  b", {"a b"}), 0);
  EXPECT_EQ(exact_match("", {""}), 1);
}

TEST(RelaxedMatch, NumbersWithinFivePercentOfTheAnswer) {
  EXPECT_EQ(relaxed_match("105", {"100"}), 1);
  EXPECT_EQ(relaxed_match("95", {"100"}), 1);
  EXPECT_EQ(relaxed_match("105.1", {"100"}), 0);
  EXPECT_EQ(relaxed_match("100", {"95"}), 0) << "five of 95 are more than five percent";
  EXPECT_EQ(relaxed_match("-10.2", {"-10"}), 1);
  EXPECT_EQ(relaxed_match("10", {"-10"}), 0);
  EXPECT_EQ(relaxed_match("0.52", {"50%"}), 1);
  EXPECT_EQ(relaxed_match("52%", {"50%"}), 1);
  EXPECT_EQ(relaxed_match("52", {"50%"}), 0);
  EXPECT_EQ(relaxed_match("+3e0", {"3"}), 1);
}

TEST(RelaxedMatch, ZeroAndWordsAreComparedAsText) {
  EXPECT_EQ(relaxed_match("0.0", {"0"}), 0);
  EXPECT_EQ(relaxed_match("0", {"0"}), 1);
  EXPECT_EQ(relaxed_match("France", {"france"}), 1);
  EXPECT_EQ(relaxed_match("3 apples", {"3"}), 0);
  EXPECT_EQ(relaxed_match("nan", {"nan"}), 1);
  EXPECT_EQ(relaxed_match("inf", {"5"}), 0);
  EXPECT_EQ(relaxed_match("5", {"7", "5"}), 1) << "best over the answers";
}

TEST(EditDistance, CountsCharactersNotBytes) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("über", "uber"), 1u);
  EXPECT_EQ(edit_distance("日本", "日本語"), 1u);
  EXPECT_EQ(edit_distance("\xff\xfe", "\xff"), 1u);
}

TEST(Anls, SimilarityAboveTheThreshold) {
  EXPECT_DOUBLE_EQ(anls("Helo", {"hello"}), 0.8);
  EXPECT_DOUBLE_EQ(anls(" A   b ", {"a b"}), 1);
  EXPECT_DOUBLE_EQ(anls("ab", {"xb"}), 0.5) << "one half is kept";
  EXPECT_DOUBLE_EQ(anls("abc", {"abxyz"}), 0) << "2 of 5 are below it";
  EXPECT_DOUBLE_EQ(anls("hello", {"nothing", "hallo"}), 0.8) << "best over the answers";
  EXPECT_DOUBLE_EQ(anls("", {""}), 1);
}

TEST(VqaNormalize, ArticlesNumbersAndContractions) {
  EXPECT_EQ(vqa_normalize("The  Cat"), "cat");
  EXPECT_EQ(vqa_normalize("a man on an ox"), "man on ox");
  EXPECT_EQ(vqa_normalize("Two"), "2");
  EXPECT_EQ(vqa_normalize("none"), "0");
  EXPECT_EQ(vqa_normalize("eleven"), "eleven");
  EXPECT_EQ(vqa_normalize("dont know"), "don't know");
  EXPECT_EQ(vqa_normalize("couldn'tve"), "couldn't've");
  EXPECT_EQ(vqa_normalize("yall'd've"), "y'all'd've");
  EXPECT_EQ(vqa_normalize("couldntve"), "couldntve") << "only one apostrophe may be missing";
  EXPECT_EQ(vqa_normalize("Im"), "im") << "as the official table, which lists it with a capital that never matches";
  EXPECT_EQ(vqa_normalize("well wed"), "well wed");
}

TEST(VqaNormalize, Punctuation) {
  EXPECT_EQ(vqa_normalize("black/white"), "black white");
  EXPECT_EQ(vqa_normalize("black / white"), "black white");
  EXPECT_EQ(vqa_normalize("t-shirt, red"), "t shirt red");
  EXPECT_EQ(vqa_normalize("1,000-2,000"), "10002000") << "a comma between digits makes every mark disappear";
  EXPECT_EQ(vqa_normalize("yes."), "yes");
  EXPECT_EQ(vqa_normalize("3.5"), "3.5");
  EXPECT_EQ(vqa_normalize("a.m."), "am");
  EXPECT_EQ(vqa_normalize("why?"), "why");
  EXPECT_EQ(vqa_normalize("new\nyork\tcity"), "new york city");
}

TEST(VqaAccuracy, TenAnswersAreLeftOutOneByOne) {
  Answers ten(10, "no");
  EXPECT_DOUBLE_EQ(vqa_accuracy("No.", ten), 1);
  for (int i = 0; i < 3; ++i) ten[static_cast<size_t>(i)] = "yes";
  // Three of ten: leaving out one of the three leaves 2/3, of the seven others 3/3.
  EXPECT_DOUBLE_EQ(vqa_accuracy("yes", ten), (3 * 2.0 / 3 + 7) / 10);
  EXPECT_DOUBLE_EQ(vqa_accuracy("maybe", ten), 0);
  ten[1] = ten[2] = "no";
  EXPECT_NEAR(vqa_accuracy("Yes", ten), 0.3, 1e-12);
}

TEST(VqaAccuracy, FewAnswersCountOnTheirOwn) {
  EXPECT_DOUBLE_EQ(vqa_accuracy("the two", {"2"}), 1);
  EXPECT_DOUBLE_EQ(vqa_accuracy("2", {"two", "3"}), 0.5);
  EXPECT_DOUBLE_EQ(vqa_accuracy("2", {}), 0);
}

TEST(AnswerMetric, IsFoundByName) {
  for (const char* name : {"exact", "relaxed", "anls", "vqa", "iou"}) {
    ASSERT_NE(answer_metric(name), nullptr) << name;
    EXPECT_EQ(answer_metric(name)->name, name);
  }
  EXPECT_EQ(answer_metrics().size(), 5u);
  EXPECT_EQ(answer_metric("bleu"), nullptr);
}

}  // namespace
}  // namespace statera
