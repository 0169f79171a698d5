// Metrics of visual question answering: how good a predicted answer is against the answers people gave. Pure functions over text.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace statera {

// 1 when the prediction equals one of the answers, else 0. White space at the ends and the case of ASCII letters do not count.
double exact_match(std::string_view prediction, const std::vector<std::string>& answers);

// Relaxed accuracy of ChartQA (Masry et al. 2022): numbers agree within 5 % of the answer, everything else must be equal without regard to
// ASCII case. "12%" is the number 0.12; an answer of zero is compared as text. Best over the answers.
double relaxed_match(std::string_view prediction, const std::vector<std::string>& answers);

// Average Normalized Levenshtein Similarity of ST-VQA and DocVQA (Biten et al. 2019), of one question: 1 - distance / longer length in
// characters, over lower-cased texts with single blanks; similarities below 0.5 count 0. Best over the answers.
double anls(std::string_view prediction, const std::vector<std::string>& answers);

// VQA accuracy (Antol et al. 2015): min(1, matches / 3). With four answers or more it is averaged over leaving each answer out, as the
// official evaluation does with its ten; with n < 4, which the official evaluation does not know, min(1, matches / n).
// Prediction and answers go through vqa_normalize. differs: the official program normalises only when the answers disagree.
double vqa_accuracy(std::string_view prediction, const std::vector<std::string>& answers);

// The official normalisation: punctuation, number words up to ten, articles, contractions written without apostrophe.
std::string vqa_normalize(std::string_view text);

// ASCII letters small, everything else as it is.
std::string ascii_lower(std::string_view text);

// Levenshtein distance in Unicode characters (bytes that are no UTF-8 count one each).
size_t edit_distance(std::string_view a, std::string_view b);

// A metric by its name, with a second figure that is told beside it (box_match has box_overlap; boxes.h), and what an answer must look like.
using AnswerScore = double (*)(std::string_view prediction, const std::vector<std::string>& answers);
struct AnswerMetric {
  std::string_view name;
  AnswerScore score;
  const char* also_name = nullptr;
  AnswerScore also = nullptr;
  bool (*accepts)(std::string_view answer) = nullptr;  // nullptr: any text can be an answer
  const char* expected = nullptr;
};
std::span<const AnswerMetric> answer_metrics();
// nullptr for a name that is none of theirs.
const AnswerMetric* answer_metric(std::string_view name);

}  // namespace statera
