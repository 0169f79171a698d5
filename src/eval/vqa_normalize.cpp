// The normalisation of answers in VQA accuracy (the rules of the evaluation program that visualqa.org publishes; its words as tables).
#include <algorithm>
#include <array>
#include <cctype>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/strings.h"
#include "eval/answers.h"

namespace statera {
namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }

// A punctuation mark disappears where the text has it beside a blank, or has a comma between digits anywhere; else it becomes a blank.
// A full stop disappears unless a digit follows.
std::string without_punctuation(const std::string& text) {
  constexpr std::string_view kMarks = ";/[]\"{}()=+\\_-><@`,?!";
  bool thousands = false;
  for (size_t i = 1; i + 1 < text.size(); ++i) thousands |= text[i] == ',' && digit(text[i - 1]) && digit(text[i + 1]);
  auto beside_blank = [&](char mark) {
    return text.find(std::string{mark, ' '}) != text.npos || text.find(std::string{' ', mark}) != text.npos;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (kMarks.find(text[i]) == kMarks.npos) {
      out += text[i];
    } else if (!thousands && !beside_blank(text[i])) {
      out += ' ';
    }
  }
  std::string stopless;
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] != '.' || (i + 1 < out.size() && digit(out[i + 1]))) stopless += out[i];
  }
  return stopless;
}

// The contractions the official table knows, as they are spelled right.
constexpr const char* kContractions[] = {
    "ain't",     "aren't",      "can't",          "could've",      "couldn't",    "couldn't've", "didn't",     "doesn't",      "don't",
    "hadn't",    "hadn't've",   "hasn't",         "haven't",       "he'd",        "he'd've",     "he's",       "how'd",        "how'll",
    "how's",     "isn't",       "it'd",           "it'd've",       "it'll",       "ma'am",       "mightn't",   "mightn't've",  "might've",
    "mustn't",   "must've",     "needn't",        "not've",        "o'clock",     "oughtn't",    "'ow's'at",   "shan't",       "she'd've",
    "should've", "shouldn't",   "shouldn't've",   "somebody'd've", "somebody'll", "somebody's",  "someone'd",  "someone'd've", "someone'll",
    "someone's", "something'd", "something'd've", "something'll",  "that's",      "there'd",     "there'd've", "there're",     "there's",
    "they'd",    "they'd've",   "they'll",        "they're",       "they've",     "'twas",       "wasn't",     "we'd've",      "we've",
    "weren't",   "what'll",     "what're",        "what's",        "what've",     "when's",      "where'd",    "where's",      "where've",
    "who'd",     "who'd've",    "who'll",         "who's",         "who've",      "why'll",      "why're",     "why's",        "won't",
    "would've",  "wouldn't",    "wouldn't've",    "y'all",         "y'all'll",    "y'all'd've",  "you'd",      "you'd've",     "you'll",
    "you're",    "you've"};

// Every spelling of a contraction that lacks one of its apostrophes -> the right one.
std::map<std::string, std::string, std::less<>> make_contractions() {
  std::map<std::string, std::string, std::less<>> out;
  for (const char* text : kContractions) {
    const std::string right = text;
    for (size_t mark = right.find('\''); mark != right.npos; mark = right.find('\'', mark + 1)) {
      std::string spelled = right;
      spelled.erase(mark, 1);
      out.emplace(std::move(spelled), right);
    }
  }
  return out;
}

std::string word_of(const std::string& word) {
  static constexpr std::array<const char*, 11> kNumbers = {"zero", "one",   "two",   "three", "four", "five",
                                                           "six",  "seven", "eight", "nine",  "ten"};
  static const auto contractions = make_contractions();
  if (word == "none") return "0";
  if (word == "a" || word == "an" || word == "the") return "";
  const auto* n = std::find(kNumbers.begin(), kNumbers.end(), word);
  if (n != kNumbers.end()) return std::to_string(n - kNumbers.begin());
  const auto found = contractions.find(word);
  return found == contractions.end() ? word : found->second;
}

}  // namespace

std::string vqa_normalize(std::string_view given) {
  std::string text(given);
  for (char& c : text) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  std::string words = without_punctuation(std::string(trim(text)));
  std::vector<std::string> out;
  for (char& c : words)
    c = static_cast<char>(std::isspace(static_cast<unsigned char>(c)) ? ' ' : std::tolower(static_cast<unsigned char>(c)));
  for (const std::string& word : split(words, ' ')) {
    std::string w = word_of(word);
    if (!w.empty()) out.push_back(std::move(w));
  }
  return join(out, " ");
}

}  // namespace statera
