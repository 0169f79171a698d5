// Message files and requests: what is accepted, what it becomes, and what the errors say.
#include "text/conversation.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"

namespace statera {
namespace {

Json parse(std::string_view text) { return Json::parse(text, "test"); }

std::string error_of(const std::function<void()>& f, ErrorKind kind = ErrorKind::usage) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(to_string(e.kind()), to_string(kind)) << e.message();
    return e.message();
  }
  ADD_FAILURE() << "no error";
  return "";
}

// The items of one user message after reading.
Json items(std::string_view content) {
  const Json message = parse("[{\"role\":\"user\",\"content\":" + std::string(content) + "}]");
  return Conversation::from_json(message, "m.json").messages().as_array()[0].at("content");
}

std::string item_error(std::string_view item) {
  return error_of([&] { (void)items("[{\"text\":\"a\"}," + std::string(item) + "]"); });
}

TEST(Conversation, EveryKeySurvives) {
  const Json messages = parse(R"([{"role":"user","name":"n","content":[{"type":"video","video":"v.mp4","fps":2,"max_pixels":100.5}]},
                                  {"role":"assistant","content":"a","tool_calls":[{"name":"f","arguments":{}}]}])");
  EXPECT_EQ(Conversation::from_json(messages, "m").messages(), messages);
}

TEST(Conversation, OpenAiItemsBecomeOurs) {
  EXPECT_EQ(items(R"([{"type":"image_url","image_url":{"url":"http://x/a.png","detail":"low"}},{"type":"text","text":"t"}])"),
            parse(R"([{"type":"image","image":"http://x/a.png","detail":"low"},{"type":"text","text":"t"}])"));
  EXPECT_EQ(items(R"([{"type":"video_url","video_url":{"url":"v.mp4"},"fps":1},{"type":"video_url","video_url":"w.mp4"}])"),
            parse(R"([{"type":"video","video":"v.mp4","fps":1},{"type":"video","video":"w.mp4"}])"));
  EXPECT_EQ(items(R"([{"image_url":{"url":"a"}}])"), parse(R"([{"type":"image","image":"a"}])"));
}

TEST(Conversation, ItemsOfHuggingFaceProcessorsBecomeOurs) {
  EXPECT_EQ(items(R"([{"type":"image","url":"u"},{"type":"image","path":"p"},{"type":"image","base64":"QUJD"},{"type":"video","path":"v"}])"),
            parse(R"([{"type":"image","image":"u"},{"type":"image","image":"p"},{"type":"image","image":"data:image;base64,QUJD"},
                      {"type":"video","video":"v"}])"));
}

TEST(Conversation, FlatImageUrlStaysAndTheKeyDecides) {
  const Json content = items(R"([{"type":"image_url","image_url":"a"},{"type":"text","video":["1","2"]},{"image":"i","image_url":"u","video":"v"},{"text":"t"}])");
  const auto& list = content.as_array();
  EXPECT_EQ(media_kind(list[0]), MediaKind::image);
  EXPECT_EQ(media_payload(list[0]), Json("a"));
  EXPECT_EQ(media_kind(list[1]), MediaKind::video);
  EXPECT_EQ(media_payload(list[1]).as_array().size(), 2u);
  EXPECT_EQ(media_kind(list[2]), MediaKind::image);
  EXPECT_EQ(media_payload(list[2]), Json("i"));
  EXPECT_EQ(media_kind(list[3]), MediaKind::none);
}

TEST(Conversation, MediaAreInOrderOverAllMessagesAndToolsToo) {
  const auto c = Conversation::from_json(parse(R"([{"role":"user","content":[{"image":"1"},{"text":"t"},{"video":"2"}]},
      {"role":"assistant","content":"no media: {\"image\": \"x\"}"},{"role":"tool","content":[{"image":"3"}]},{"role":"user","content":[{"image":"4"}]}])"), "m");
  std::string order;
  for (const Json* item : c.media()) order += media_payload(*item).as_string();
  EXPECT_EQ(order, "1234");
}

TEST(Conversation, ContentMayBeMissingBesideToolCallsOnly) {
  const auto c = Conversation::from_json(parse(R"([{"role":"assistant","content":null,"tool_calls":[{"name":"f"}]}])"), "m");
  EXPECT_EQ(c.messages().as_array()[0].at("content"), Json(""));
  EXPECT_EQ(error_of([] { (void)Conversation::from_json(parse(R"([{"role":"user"}])"), "m"); }), "m: message 0: content: missing");
}

TEST(Conversation, UserPutsMediaBeforeTheText) {
  EXPECT_EQ(Conversation::user("Hi").messages(), parse(R"([{"role":"user","content":"Hi"}])"));
  EXPECT_EQ(Conversation::user("Hi", {"a"}, {"v"}).messages(),
            parse(R"([{"role":"user","content":[{"type":"image","image":"a"},{"type":"video","video":"v"},{"type":"text","text":"Hi"}]}])"));
}

TEST(Conversation, ErrorsNameMessageAndItem) {
  EXPECT_EQ(item_error(R"({"type":"image"})"), "m.json: message 0: item 1: type \"image\" without an image, image_url or video key");
  EXPECT_NE(item_error(R"({"type":"video_url"})").find("item 1: type \"video_url\" without"), std::string::npos);
  EXPECT_NE(item_error(R"({"image":3})").find("item 1: image: expected"), std::string::npos);
  EXPECT_NE(item_error(R"({"image":null})").find("item 1: image: expected"), std::string::npos);
  EXPECT_NE(item_error(R"({"image":["a"]})").find("item 1: image: expected"), std::string::npos);
  EXPECT_NE(item_error(R"({"image":""})").find("item 1: image is empty"), std::string::npos);
  EXPECT_NE(item_error(R"({"video":[]})").find("empty list of frames"), std::string::npos);
  EXPECT_NE(item_error(R"({"video":[1]})").find("a frame is not"), std::string::npos);
  EXPECT_NE(item_error(R"({"type":"text"})").find("without a text key"), std::string::npos);
  EXPECT_NE(item_error(R"({"text":1})").find("item 1: text: expected"), std::string::npos);
  EXPECT_NE(item_error(R"({"type":1})").find("item 1: type: expected"), std::string::npos);
  EXPECT_NE(item_error(R"({"type":"image_url","image_url":{}})").find("item 1: image_url: expected {\"url\""), std::string::npos);
  EXPECT_NE(item_error(R"("text")").find("item 1: expected an object"), std::string::npos);
  EXPECT_EQ(error_of([] { (void)Conversation::from_json(parse(R"([{"role":"user","content":"a"},{"role":"robot","content":"a"}])"), "f"); }),
            "f: message 1: role \"robot\" is none of system, user, assistant, tool");
  EXPECT_NE(error_of([] { (void)Conversation::from_json(parse(R"([{"role":3}])"), "f"); }).find("message 0: role"), std::string::npos);
  EXPECT_NE(error_of([] { (void)Conversation::from_json(parse(R"([3])"), "f"); }).find("message 0: expected an object"), std::string::npos);
  EXPECT_NE(error_of([] { (void)Conversation::from_json(parse(R"([{"role":"user","content":{}}])"), "f"); }).find("content: expected"), std::string::npos);
}

TEST(Conversations, ListsObjectsAndBatchesAreRead) {
  const std::string one = R"([{"role":"user","content":"a"}])";
  EXPECT_EQ(conversations_from_json(parse(one), "f").size(), 1u);
  EXPECT_EQ(conversations_from_json(parse("{\"messages\":" + one + "}"), "f")[0].messages(), parse(one));
  EXPECT_EQ(conversations_from_json(parse("[" + one + "," + one + "]"), "f").size(), 2u);
  EXPECT_EQ(conversations_from_json(parse("[{\"messages\":" + one + "}," + one + "]"), "f").size(), 2u);
  EXPECT_NE(error_of([&] { (void)conversations_from_json(parse("[" + one + ",[{\"role\":\"user\"}]]"), "f"); }).find("f: conversation 1: message 0: "),
            std::string::npos);
  for (const char* text : {"[]", "{}", "3", "[[]]", "[3]", "null", "\"x\""}) (void)error_of([&] { (void)conversations_from_json(parse(text), "f"); });
}

TEST(Requests, LinesBecomeRequestsWithTheirOptions) {
  const auto list = requests_from_text(
      "{\"id\":\"a\",\"prompt\":\"Hi\",\"images\":[\"x.png\"],\"max_new_tokens\":5,\"temperature\":0.5}\n\n  \r\n"
      "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}\r\n{\"id\":7,\"prompt\":\"c\"}", "r.jsonl");
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].id, Json("a"));
  EXPECT_EQ(list[0].options, parse(R"({"max_new_tokens":5,"temperature":0.5})"));
  EXPECT_EQ(list[0].conversation.media().size(), 1u);
  EXPECT_EQ(list[1].id, Json(4));
  EXPECT_EQ(list[1].options, Json::object());
  EXPECT_EQ(list[2].id, Json(7));
}

TEST(Requests, ErrorsNameTheLine) {
  auto second = [](std::string_view line, ErrorKind kind = ErrorKind::usage) {
    return error_of([&] { (void)requests_from_text("{\"prompt\":\"a\"}\n" + std::string(line) + "\n", "r.jsonl"); }, kind);
  };
  EXPECT_TRUE(second("{\"prompt\":", ErrorKind::bad_file).starts_with("r.jsonl: line 2: "));
  EXPECT_EQ(second("{}"), "r.jsonl: line 2: neither messages nor prompt");
  EXPECT_EQ(second(R"({"prompt":"a","messages":[]})"), "r.jsonl: line 2: both messages and prompt");
  EXPECT_EQ(second("[]"), "r.jsonl: line 2: expected an object");
  EXPECT_EQ(second(R"({"prompt":1})"), "r.jsonl: line 2: prompt: expected a text");
  EXPECT_EQ(second(R"({"prompt":"a","id":1})"), "r.jsonl: line 2: id 1 occurs twice");
  EXPECT_EQ(second(R"({"prompt":"a","id":[]})"), "r.jsonl: line 2: id: expected a text or an integer");
  EXPECT_EQ(second(R"({"messages":[{"role":"user","content":[{"type":"video"}]}]})"),
            "r.jsonl: line 2: messages: message 0: item 0: type \"video\" without an image, image_url or video key");
  EXPECT_NE(second(R"({"messages":[{"role":"user","content":"a"}],"images":["x"]})").find("go with prompt"), std::string::npos);
  EXPECT_NE(second(R"({"prompt":"a","images":"x"})").find("images: expected a list"), std::string::npos);
}

}  // namespace
}  // namespace statera
