// Calibration files: how they fall into items and what an item is.
#include "quant/calib/items.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "ckpt/test_files.h"
#include "quant/calib/bundled.h"
#include "data/test_frames.h"

namespace statera {
namespace {

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.message();
  }
  return "no error";
}

Conversation talk(const std::string& item) { return std::get<Conversation>(read_item(Json::parse(item, "t"), {}, "t")); }

TEST(CalibItems, ParagraphsLinesAndEntriesAreItems) {
  TempDir dir;
  write_text(dir / "a.txt", "one\ntwo\n\n  \nthree  \n");
  ItemFile text(dir / "a.txt");
  ASSERT_EQ(text.size(), 2u);
  EXPECT_EQ(text.item(0).as_string(), "one\ntwo");
  EXPECT_EQ(text.item(1).as_string(), "three");
  EXPECT_TRUE(text.where(1).ends_with("a.txt: line 5"));
  write_text(dir / "b.jsonl", "{\"text\": \"x\"}\n\n{\"text\": \"y\"}");
  ItemFile lines(dir / "b.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(std::get<std::string>(read_item(lines.item(1), {}, "w")), "y");
  write_text(dir / "c.json", "[\"x\", {\"body\": \"y\"}]");
  ItemFile list(dir / "c.json");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(std::get<std::string>(read_item(list.item(0), {}, "w")), "x");
  EXPECT_EQ(std::get<std::string>(read_item(list.item(1), {"body"}, "w")), "y");
}

TEST(CalibItems, AListOfMessagesIsOneConversation) {
  TempDir dir;
  write_text(dir / "m.json", R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])");
  ItemFile file(dir / "m.json");
  ASSERT_EQ(file.size(), 1u);
  EXPECT_EQ(std::get<Conversation>(read_item(file.item(0), {}, "w")).messages().as_array().size(), 2u);
}

TEST(CalibItems, LlavaMarksBecomePicturesInTheirPlace) {
  const Conversation c =
      talk(R"({"image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image>\nfirst <image> second"},
      {"from": "gpt", "value": " fine "}]})");
  const auto& turns = c.messages().as_array();
  ASSERT_EQ(turns.size(), 2u);
  const auto& content = turns[0].at("content").as_array();
  ASSERT_EQ(content.size(), 4u);
  EXPECT_EQ(content[0].at("image").as_string(), "a.png");
  EXPECT_EQ(content[1].at("text").as_string(), "first");
  EXPECT_EQ(content[2].at("image").as_string(), "b.png");
  EXPECT_EQ(content[3].at("text").as_string(), "second");
  EXPECT_EQ(turns[1].at("content").as_string(), "fine");
}

TEST(CalibItems, LlavaPicturesWithoutMarksStandFirst) {
  const Conversation c =
      talk(R"({"image": "a.png", "conversations": [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "that"}]})");
  EXPECT_EQ(c.messages().as_array()[0].at("content").as_array()[0].at("image").as_string(), "a.png");
  EXPECT_EQ(talk(R"({"conversations": [{"from": "human", "value": "what?"}]})").media().size(), 0u);
}

TEST(CalibItems, FaultsNameTheItem) {
  EXPECT_NE(message_of([] {
              talk(R"({"image": "a", "conversations": [{"from": "human", "value": "<image> <image>"}]})");
            }).find("more <image> marks"),
            std::string::npos);
  EXPECT_NE(message_of([] {
              talk(R"({"image": ["a", "b"], "conversations": [{"from": "human", "value": "<image>"}]})");
            }).find("2 pictures, but 1"),
            std::string::npos);
  EXPECT_NE(message_of([] { talk(R"({"conversations": [{"from": "robot", "value": "x"}]})"); }).find("robot"), std::string::npos);
  EXPECT_NE(message_of([] { talk(R"({"body": "x"})"); }).find("it has body"), std::string::npos);
  EXPECT_EQ(message_of([] { read_item(Json::parse(R"({"body": "x"})", "t"), {"bodi"}, "t"); }), "bad_file: t: has no bodi; did you mean \"body\"?");
}

TEST(CalibItems, TheLastTurnIsReadAsMbqReadsIt) {
  const auto last = [](const std::string& item) {
    return std::get<Conversation>(read_item(Json::parse(item, "t"), {.last_turn = true}, "t"));
  };
  const Conversation c =
      last(R"({"image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image>\nfirst"}, {"from": "gpt", "value": "one"},
      {"from": "human", "value": "so <image>\n what\nis it?"}, {"from": "gpt", "value": " two\n"}]})");
  const auto& turns = c.messages().as_array();
  ASSERT_EQ(turns.size(), 2u);
  const auto& content = turns[0].at("content").as_array();
  ASSERT_EQ(content.size(), 3u);
  EXPECT_EQ(content[0].at("image").as_string(), "a.png");
  EXPECT_EQ(content[1].at("image").as_string(), "b.png");
  EXPECT_EQ(content[2].at("text").as_string(), "so  whatis it?");
  EXPECT_EQ(turns[1].at("content").as_string(), " two\n");
  EXPECT_EQ(last(R"({"conversations": [{"from": "human", "value": "a\n"}, {"from": "gpt", "value": "b"}]})")
                .messages()
                .as_array()[0]
                .at("content")
                .as_string(),
            "a");
  EXPECT_EQ(message_of([&] { last(R"({"conversations": [{"from": "human", "value": "x"}]})"); }), "bad_file: t: has no turn of gpt");
  EXPECT_EQ(
      message_of([&] { last(R"({"messages": [{"role": "user", "content": "x"}]})"); }).find("unsupported: t: --parity qwen2vl-last-turn"),
      0u);
}

TEST(CalibItems, PackedFilesReadLikePlainOnes) {
  TempDir dir;
  write_text(dir / "b.jsonl.zst", zst_raw("{\"text\": \"x\"}\n") + zst_raw("{\"text\": \"y\"}\n"));
  const ItemFile lines(dir / "b.jsonl.zst");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(std::get<std::string>(read_item(lines.item(1), {}, "w")), "y");
  EXPECT_TRUE(lines.where(1).ends_with("b.jsonl.zst: line 2"));
  write_text(dir / "c.json.zst", zst_raw("[\"x\", \"y\", \"z\"]"));
  EXPECT_EQ(ItemFile(dir / "c.json.zst").item(2).as_string(), "z");
  write_text(dir / "a.TXT.ZST", zst_raw("one\n\ntwo"));
  EXPECT_EQ(ItemFile(dir / "a.TXT.ZST").item(1).as_string(), "two");
}

TEST(CalibItems, MalformedFilesGiveOneClearError) {
  TempDir dir;
  write_text(dir / "a.jsonl", "{\"text\": \"x\"}\n{\"text\": \n");
  const ItemFile lines(dir / "a.jsonl");
  EXPECT_EQ(lines.item(0).at("text").as_string(), "x");
  EXPECT_EQ(message_of([&] { lines.item(1); }).find("bad_file: " + (dir / "a.jsonl") + ": line 2"), 0u);
  write_text(dir / "cut.json", "[{\"text\": \"x\"}, {\"te");
  EXPECT_EQ(message_of([&] { ItemFile(dir / "cut.json"); }).find("bad_file: " + (dir / "cut.json")), 0u);
  write_text(dir / "plain.jsonl.zst", "{\"text\": \"x\"}\n");
  EXPECT_EQ(
      message_of([&] { ItemFile(dir / "plain.jsonl.zst"); }).find("bad_file: " + (dir / "plain.jsonl.zst") + ": not readable as Zstandard"),
      0u);
  write_text(dir / "empty.jsonl.zst", zst_raw(""));
  EXPECT_EQ(message_of([&] { ItemFile(dir / "empty.jsonl.zst"); }).find("bad_file: " + (dir / "empty.jsonl.zst") + ": holds nothing"), 0u);
  write_text(dir / "empty.txt", "\n \n");
  EXPECT_EQ(message_of([&] { ItemFile(dir / "empty.txt"); }).find("bad_file: "), 0u);
  EXPECT_EQ(message_of([] { ItemFile("none.txt"); }).find("not_found: "), 0u);
}

TEST(CalibItems, KindsThatAreNotReadSayWhatToDo) {
  EXPECT_NE(message_of([] { ItemFile("x.jsonl.gz"); }).find("unpack it first"), std::string::npos);
  for (const char* name : {"x.csv", "x.csv.zst", "x.zst", "jsonl", ""})
    EXPECT_EQ(message_of([&] { ItemFile{std::string(name)}; }).find("unsupported: "), 0u) << name;
}

TEST(CalibItems, TheBundledSetIsInsideTheProgram) {
  const ItemFile text(std::string(bundled_file("text.txt")), "text.txt"), messages(bundled_messages(), "messages.jsonl");
  EXPECT_GT(text.size(), 20u);
  size_t pictures = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto c = std::get<Conversation>(read_item(messages.item(i), {}, "m"));
    for (const Json* item : c.media()) {
      EXPECT_TRUE(media_payload(*item).as_string().starts_with("data:image/"));
      ++pictures;
    }
  }
  EXPECT_EQ(pictures, 7u);
  EXPECT_EQ(bundled_file("pictures/chart.png").substr(1, 3), "PNG");
}

}  // namespace
}  // namespace statera
