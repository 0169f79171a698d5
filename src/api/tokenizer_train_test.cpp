// Training a tokenizer from files: what a conversation counts as, the folder that is written, and that a failure leaves nothing.
#include "api/tokenizer_train.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "ckpt/test_files.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace statera {
namespace {

const std::string kExamples = std::string(STATERA_SOURCE_DIR) + "/examples/";

TokenizerTrainOptions options_for(const std::string& out, int64_t size = 400) {
  TokenizerTrainOptions o;
  o.files = {kExamples + "calibration/text.txt", kExamples + "calibration/messages.jsonl"};
  o.out = out;
  o.vocab_size = size;
  return o;
}

std::string message_of(const TokenizerTrainOptions& o) {
  try {
    tokenizer_train(o);
  } catch (const Error& e) {
    return e.message();
  }
  return "no error";
}

TEST(TokenizerTrain, TheFolderIsATokenizerWithAChatTemplate) {
  TempDir dir;
  const TokenizerTrainReport report = tokenizer_train(options_for(dir / "tok"));
  EXPECT_EQ(report.vocab_size, 400);
  EXPECT_EQ(report.files, 2);
  EXPECT_GT(report.texts, 0);
  EXPECT_GT(report.conversations, 0);
  EXPECT_EQ(report.special.at(1), (std::pair<std::string, int64_t>("<|im_start|>", 387)));
  const Tokenizer t = Tokenizer::from_directory(dir / "tok");
  EXPECT_EQ(t.eos_id(), 388);
  EXPECT_EQ(t.pad_id(), 386);
  const Json messages = Json::parse(R"([{"role": "user", "content": [{"image": "x.png"}, {"text": "What?"}]}])", "messages");
  const std::string text = ChatTemplate::from_directory(dir / "tok").render(messages);
  EXPECT_EQ(text, "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(t.decode(t.encode(text), false), text);
  EXPECT_GT(report.to_json().at("bytes_per_token").as_double(), 1.3);
}

TEST(TokenizerTrain, TheSameFilesGiveTheSameBytes) {
  TempDir dir;
  tokenizer_train(options_for(dir / "one"));
  TokenizerTrainOptions o = options_for(dir / "two");
  std::swap(o.files[0], o.files[1]);
  tokenizer_train(o);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    EXPECT_EQ(read_file(dir / "one/" + name), read_file(dir / "two/" + name)) << name;
}

TEST(TokenizerTrain, AConversationCountsAsItsRenderedText) {
  TempDir dir;
  std::string talk, words;
  for (int i = 0; i < 5; ++i) {
    talk += R"({"image": "none.png", "conversations": [{"from": "human", "value": "<image>\nred or blue?"},)"
            R"( {"from": "gpt", "value": "red"}]})"
            "\n";
    words += R"({"text": "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>red or blue?<|im_end|>\n)"
             R"(<|im_start|>assistant\nred<|im_end|>\n"})"
             "\n";
  }
  write_text(dir / "talk.jsonl", talk);
  write_text(dir / "words.jsonl", words);
  for (const char* name : {"talk", "words"}) {
    TokenizerTrainOptions o = options_for(dir / name, 285);
    o.files = {dir / (name + std::string(".jsonl"))};
    tokenizer_train(o);
  }
  EXPECT_EQ(read_file(dir / "talk/tokenizer.json"), read_file(dir / "words/tokenizer.json"));
}

TEST(TokenizerTrain, AFailureIsOneLineAndLeavesNothing) {
  TempDir dir;
  TokenizerTrainOptions o = options_for(dir / "out", 1000000);
  EXPECT_EQ(message_of(o).find("the text has pairs for "), 0u);
  o = options_for(dir / "out");
  o.eos = "<|im_ned|>";
  EXPECT_EQ(message_of(o), "--eos: \"<|im_ned|>\" is none of the special tokens; did you mean \"<|im_end|>\"?");
  o = options_for(dir / "out");
  o.special = {"<|endoftext|>", "<|im_end|>"};
  EXPECT_EQ(message_of(o), "--special: without <|im_start|> the chat template must be your own (--chat-template)");
  write_text(dir / "broken.jsonl", "{\"text\": \"fine\"}\n{\"txt\": 1}\n");
  o = options_for(dir / "out");
  o.files = {dir / "broken.jsonl"};
  EXPECT_NE(message_of(o).find("broken.jsonl: line 2"), std::string::npos) << message_of(o);
  std::atomic<bool> cancel = true;
  EXPECT_THROW(tokenizer_train(options_for(dir / "out"), {}, &cancel), Error);
  EXPECT_FALSE(is_directory(dir / "out"));
  size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(std::string(dir))) ++entries;
  EXPECT_EQ(entries, 1u);
  tokenizer_train(options_for(dir / "out"));
  EXPECT_NE(message_of(options_for(dir / "out")).find("exists already"), std::string::npos);
  o = options_for(dir / "out", 380);
  o.overwrite = true;
  EXPECT_EQ(tokenizer_train(o).vocab_size, 380);
}

}  // namespace
}  // namespace statera
