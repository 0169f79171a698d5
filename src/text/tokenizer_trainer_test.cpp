// TokenizerTrainer: the vocabulary that Python's trainer learnt, ids in order, any order of texts, and what it refuses.
#include "text/tokenizer_trainer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "text/tokenizer.h"

namespace statera {
namespace {

const std::string kRoot = STATERA_SOURCE_DIR;
const std::string kText = "the cat sat on the mat, the rat sat on the cat\n<|im_end|>\nthat cat: 12 + 34 = 46\n";

TokenizerSpec spec_of(int64_t size, int64_t min_frequency = 1) {
  TokenizerSpec spec;
  spec.vocab_size = size;
  spec.min_frequency = min_frequency;
  return spec;
}

std::string message_of(const TokenizerSpec& spec, const std::string& text) {
  try {
    TokenizerTrainer trainer(spec);
    trainer.add(text);
    trainer.finish();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.message();
  }
  return "no error";
}

TEST(TokenizerTrainer, LearnsWhatPythonsTrainerLearnt) {
  // tools/golden/tokenizer.py made the example's tokenizer from the same text: 984 tokens before its special ones.
  TokenizerTrainer trainer(spec_of(984 + 14));
  std::string corpus = read_file(kRoot + "/tools/golden/corpus.txt");
  while (!corpus.empty()) {
    const size_t end = std::min(corpus.find('\n'), corpus.size() - 1) + 1;
    trainer.add(corpus.substr(0, end));
    corpus.erase(0, end);
  }
  for (int i = 0; i < 4; ++i) trainer.add("user\nassistant\nsystem\n");
  const Json ours = Json::parse(trainer.finish(), "ours"), theirs = Json::read_file(kRoot + "/examples/tiny-qwen3-vl/tokenizer.json");
  EXPECT_EQ(ours.at("model").at("vocab"), theirs.at("model").at("vocab"));
  EXPECT_EQ(ours.at("model").at("merges"), theirs.at("model").at("merges"));
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor"}) EXPECT_EQ(ours.at(part), theirs.at(part)) << part;
  for (size_t i = 0; i < 14; ++i) EXPECT_EQ(ours.at("added_tokens").as_array()[i], theirs.at("added_tokens").as_array()[i]) << i;
}

TEST(TokenizerTrainer, SpecialTokensGetTheLastIdsInTheirOrder) {
  TokenizerTrainer trainer(spec_of(280));
  trainer.add(kText);
  const Tokenizer t = Tokenizer::from_blob(trainer.finish(), trained_tokenizer_config(spec_of(280), "<|im_end|>", "<|endoftext|>"));
  EXPECT_EQ(t.vocab_size(), 280);
  for (size_t i = 0; i < 14; ++i) EXPECT_EQ(t.token_id(qwen_special_tokens()[i]), 266 + static_cast<int64_t>(i));
  EXPECT_EQ(t.eos_id(), 268);
  EXPECT_EQ(t.pad_id(), 266);
  EXPECT_EQ(t.decode(t.encode(kText), false), kText);
  EXPECT_EQ(t.encode("a<|image_pad|>b").at(1), 278);
}

TEST(TokenizerTrainer, NoTokenIsLearntAcrossOrFromASpecialOne) {
  TokenizerTrainer with(spec_of(275)), without(spec_of(275));
  with.add(kText);
  for (const std::string& piece : {kText.substr(0, kText.find('<')), kText.substr(kText.find('>') + 1)}) without.add(piece);
  EXPECT_EQ(with.finish(), without.finish());
  EXPECT_EQ(with.bytes(), static_cast<int64_t>(kText.size()) - 10);
}

TEST(TokenizerTrainer, TheSameTextsInAnyOrderGiveTheSameBytes) {
  std::vector<std::string> lines = split(read_file(kRoot + "/tools/golden/corpus.txt"), '\n');
  std::string first;
  for (int round = 0; round < 3; ++round) {
    TokenizerTrainer trainer(spec_of(900));
    for (const std::string& line : lines) trainer.add(line);
    if (round == 0) first = trainer.finish();
    EXPECT_EQ(trainer.finish(), first);
    std::rotate(lines.begin(), lines.begin() + 7, lines.end());
  }
}

TEST(TokenizerTrainer, WhatCannotBeIsSaidInOneLine) {
  EXPECT_EQ(message_of(spec_of(269), kText), "usage: a vocabulary of 269 is too small: 256 bytes and 14 special tokens make 270");
  EXPECT_EQ(message_of(spec_of(5000), kText).find("usage: the text has pairs for "), 0u);
  EXPECT_EQ(message_of(spec_of(5000, 2), "").find("usage: the text has pairs for 270 tokens only, not 5000"), 0u);
  EXPECT_EQ(message_of(spec_of(0), ""), "usage: vocab_size: 0 is not between 1 and 16777216");
  EXPECT_EQ(message_of(spec_of(300, 0), ""), "usage: min_frequency: must be 1 or more");
  TokenizerSpec twice = spec_of(275);
  twice.special.push_back("<|im_end|>");
  EXPECT_EQ(message_of(twice, ""), "usage: special: \"<|im_end|>\" is given twice");
  twice.special = {"a"};
  EXPECT_EQ(message_of(twice, kText), "usage: special token \"a\" is a single byte or a learnt token already");
  EXPECT_EQ(message_of(spec_of(300), "\xff").find("bad_file: text is not UTF-8"), 0u);
}

}  // namespace
}  // namespace statera
