// Tokenizer and StreamDecoder against ids and texts of Python's tokenizers (testdata/tokenizer_golden.json).
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

const std::string kData = std::string(STATERA_SOURCE_DIR) + "/src/text/testdata";

std::vector<int64_t> ids_of(const Json& list) {
  std::vector<int64_t> out;
  for (const Json& id : list.as_array()) out.push_back(id.as_int());
  return out;
}

// By value: a temporary in the range of a for loop would not live.
Json::Array golden_cases(std::string_view name) {
  return Json::read_file(kData + "/tokenizer_golden.json").at(name).at("cases").as_array();
}

Json golden(std::string_view name) { return Json::read_file(kData + "/tokenizer_golden.json").at(name); }

class Folder {
 public:
  Folder() : path_((std::filesystem::temp_directory_path() / ("statera_text_" + std::to_string(::getpid()))).string()) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, std::string_view bytes) const { write_file_atomic(path_ + "/" + name, bytes); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string error_of(const std::function<void()>& f, ErrorKind kind) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(to_string(e.kind()), to_string(kind)) << e.message();
    return e.message();
  }
  ADD_FAILURE() << "no error";
  return "";
}

class TokenizerGolden : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerGolden, testing::Values("byte_level", "pieces"), [](const auto& i) { return std::string(i.param); });

TEST_P(TokenizerGolden, IdsAndTextsEqualPython) {
  const Json expected = golden(GetParam());
  const Tokenizer t = Tokenizer::from_directory(kData + "/" + GetParam());
  EXPECT_EQ(t.vocab_size(), expected.at("vocab_size").as_int());
  size_t count = 0;
  for (const Json& c : expected.at("cases").as_array()) {
    const std::string& text = c.at("text").as_string();
    const auto ids = ids_of(c.at("ids"));
    EXPECT_EQ(t.encode(text), ids) << text;
    EXPECT_EQ(t.encode(text, false), ids_of(c.at("plain_ids"))) << text;
    EXPECT_EQ(t.decode(ids), c.at("decoded").as_string()) << text;
    EXPECT_EQ(t.decode(ids, false), c.at("decoded_all").as_string()) << text;
    ++count;
  }
  EXPECT_GE(count, 40u);
}

TEST_P(TokenizerGolden, SpecialIdsComeFromTheConfig) {
  const Json expected = golden(GetParam());
  const Tokenizer t = Tokenizer::from_directory(kData + "/" + GetParam());
  auto wanted = [&](std::string_view key) { return expected.get(key) ? std::optional(expected.at(key).as_int()) : std::nullopt; };
  EXPECT_EQ(t.bos_id(), wanted("bos_id"));
  EXPECT_EQ(t.eos_id(), wanted("eos_id"));
  EXPECT_EQ(t.pad_id(), wanted("pad_id"));
  EXPECT_TRUE(t.eos_id().has_value());
}

TEST_P(TokenizerGolden, StreamedPartsEqualTheWholeAndAreCompleteCharacters) {
  const Tokenizer t = Tokenizer::from_directory(kData + "/" + GetParam());
  for (const Json& c : golden_cases(GetParam())) {
    for (bool skip : {true, false}) {
      StreamDecoder stream(t, skip);
      std::string text;
      for (int64_t id : ids_of(c.at("ids"))) {
        const std::string part = stream.feed(id);
        EXPECT_NO_THROW(Json::parse(Json(part).dump(), "part")) << "not UTF-8";
        text += part;
      }
      text += stream.flush();
      EXPECT_EQ(text, c.at(skip ? "decoded" : "decoded_all").as_string());
    }
  }
}

TEST(StreamDecoder, HoldsBackTheBytesOfAnUnfinishedCharacter) {
  const Tokenizer t = Tokenizer::from_directory(kData + "/byte_level");
  const auto ids = t.encode("a\u0ca0b");  // its bytes were never merged: one token each
  ASSERT_EQ(ids.size(), 5u);
  StreamDecoder stream(t);
  EXPECT_EQ(stream.feed(ids[0]), "a");
  for (int i = 1; i < 3; ++i) EXPECT_EQ(stream.feed(ids[static_cast<size_t>(i)]), "");
  EXPECT_EQ(stream.feed(ids[3]), "\u0ca0");
  EXPECT_EQ(stream.feed(ids[4]), "b");
  EXPECT_EQ(stream.flush(), "");
}

TEST(StreamDecoder, FlushShowsAnUnfinishedCharacterAndStartsAnew) {
  const Tokenizer t = Tokenizer::from_directory(kData + "/byte_level");
  const auto ids = t.encode("\U0001F980");
  StreamDecoder stream(t);
  EXPECT_EQ(stream.feed(ids[0]), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.feed(t.encode("a")[0]), "a");
}

TEST(StreamDecoder, BrokenBytesForeverDoNotGrowTheWindow) {
  const Tokenizer t = Tokenizer::from_directory(kData + "/byte_level");
  const int64_t lone = t.encode("\u0ca0")[1];
  StreamDecoder stream(t);
  std::string text;
  for (int i = 0; i < 1000; ++i) text += stream.feed(lone);
  EXPECT_GE(text.size(), 900u * 3);
  EXPECT_EQ(text + stream.flush(), t.decode(std::vector<int64_t>(1000, lone)));
}

TEST(Tokenizer, TokensAndIdsAreEachOthersInverse) {
  const Tokenizer t = Tokenizer::from_directory(kData + "/byte_level");
  for (int64_t id = 0; id < t.vocab_size(); ++id) EXPECT_EQ(t.token_id(t.token(id)), id);
  EXPECT_FALSE(t.token_id("no such token").has_value());
  EXPECT_NE(error_of([&] { (void)t.token(100000); }, ErrorKind::usage).find("100000"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)t.decode(std::vector<int64_t>{-1}); }, ErrorKind::usage).find("-1"), std::string::npos);
}

TEST(Tokenizer, TextThatIsNotUtf8IsAnErrorWithThePlace) {
  const Tokenizer t = Tokenizer::from_directory(kData + "/byte_level");
  EXPECT_NE(error_of([&] { (void)t.encode("ab\xff"); }, ErrorKind::usage).find("byte 2"), std::string::npos);
}

TEST(Tokenizer, MalformedFilesAreOneLineNamingTheFile) {
  Folder folder;
  for (const char* text : {"", "{", "[]", "{\"model\": 3}", "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[\"a b\"]}}"}) {
    folder.write("tokenizer.json", text);
    const std::string message = error_of([&] { (void)Tokenizer::from_directory(folder.path()); }, ErrorKind::bad_file);
    EXPECT_TRUE(message.starts_with(folder.path() + "/tokenizer.json: ")) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(Tokenizer, AddedTokensOfTheConfigAreAddedAtTheirIds) {
  const std::string blob = read_file(kData + "/byte_level/tokenizer.json");
  const int64_t size = Tokenizer::from_blob(blob, nullptr).vocab_size();
  auto config = [&](int64_t id) {
    return Json::parse("{\"added_tokens_decoder\":{\"" + std::to_string(id) + "\":{\"content\":\"<new>\",\"special\":true}}}", "test");
  };
  const Tokenizer t = Tokenizer::from_blob(blob, config(size));
  EXPECT_EQ(t.encode("a<new>")[1], size);
  EXPECT_EQ(t.decode(t.encode("a<new>b")), "ab");
  EXPECT_NE(error_of([&] { (void)Tokenizer::from_blob(blob, config(size + 7)); }, ErrorKind::bad_file).find("<new>"), std::string::npos);
}

TEST(Tokenizer, VocabAndMergesOfQwen2GiveTheSameIds) {
  const Json saved = Json::read_file(kData + "/byte_level/tokenizer.json");
  Json config = Json::parse(R"({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": {}})", "test");
  Json added = Json::object();
  for (const Json& token : saved.at("added_tokens").as_array()) added.set(std::to_string(token.at("id").as_int()), token);
  config.set("added_tokens_decoder", added);
  std::string merges = "#version: 0.2\n";
  for (const Json& pair : saved.at("model").at("merges").as_array()) {
    merges += pair.as_array()[0].as_string() + " " + pair.as_array()[1].as_string() + "\n";
  }
  Folder folder;
  folder.write("vocab.json", saved.at("model").at("vocab").dump());
  folder.write("merges.txt", merges);
  folder.write("tokenizer_config.json", config.dump());
  const Tokenizer t = Tokenizer::from_directory(folder.path());
  for (const Json& c : golden_cases("byte_level")) {
    EXPECT_EQ(t.encode(c.at("text").as_string()), ids_of(c.at("ids")));
    EXPECT_EQ(t.decode(ids_of(c.at("ids"))), c.at("decoded").as_string());
  }
  EXPECT_EQ(t.eos_id(), Tokenizer::from_directory(kData + "/byte_level").eos_id());
  folder.write("merges.txt", "#version: 0.2\nonlyone\n");
  EXPECT_NE(error_of([&] { (void)Tokenizer::from_directory(folder.path()); }, ErrorKind::bad_file).find("merges.txt: line 2"), std::string::npos);
}

TEST(Tokenizer, OtherFilesAreNamedWithTheWayToConvertThem) {
  Folder folder;
  (void)error_of([&] { (void)Tokenizer::from_directory(folder.path()); }, ErrorKind::not_found);
  (void)error_of([&] { (void)Tokenizer::from_directory(folder.path() + "/none"); }, ErrorKind::not_found);
  folder.write("tokenizer.model", "x");
  const std::string message = error_of([&] { (void)Tokenizer::from_directory(folder.path()); }, ErrorKind::unsupported);
  EXPECT_NE(message.find("there is tokenizer.model"), std::string::npos);
  EXPECT_NE(message.find("save_pretrained"), std::string::npos);
}

TEST(Tokenizer, SpecialTokensMapFillsWhatTheConfigLeavesOut) {
  Folder folder;
  folder.write("tokenizer.json", read_file(kData + "/byte_level/tokenizer.json"));
  folder.write("tokenizer_config.json", R"({"eos_token": "<|im_end|>", "bos_token": null})");
  folder.write("special_tokens_map.json", R"({"eos_token": "<|endoftext|>", "pad_token": {"content": "<|endoftext|>"}})");
  const Tokenizer t = Tokenizer::from_directory(folder.path());
  EXPECT_EQ(t.eos_id(), t.token_id("<|im_end|>"));
  EXPECT_EQ(t.pad_id(), t.token_id("<|endoftext|>"));
  EXPECT_FALSE(t.bos_id().has_value());
}

TEST(Tokenizer, SeveralThreadsShareOneHandle) {
  const Tokenizer t = Tokenizer::from_directory(kData + "/byte_level");
  const std::string text = "The quick brown fox 你好 <|im_end|>";
  const auto expected = t.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> same(4, 0);
  for (size_t i = 0; i < same.size(); ++i) {
    threads.emplace_back([&, i, t] {
      for (int n = 0; n < 200; ++n) same[i] += t.encode(text) == expected && t.decode(expected, false) == text;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(same, std::vector<int>(4, 200));
}

}  // namespace
}  // namespace statera
