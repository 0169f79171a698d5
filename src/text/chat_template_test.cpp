// Chat templates against transformers' apply_chat_template (testdata/template_golden.json), and where templates are looked for.
#include "text/chat_template.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

const std::string kData = std::string(STATERA_SOURCE_DIR) + "/src/text/testdata";
const Json kHi = Json::parse(R"([{"role": "user", "content": "Hi"}])", "test");

class ChatTemplateFiles : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("statera_chat_" + std::to_string(::getpid()))).string();
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  void write(const std::string& name, std::string_view bytes) const { write_file_atomic(path_ + "/" + name, bytes); }
  std::string render() const { return ChatTemplate::from_directory(path_).render(kHi); }
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

std::string render_text(std::string_view source, const Json& extra = nullptr) {
  RenderOptions options;
  options.extra = extra;
  return ChatTemplate::from_source(source, "t.jinja").render(kHi, options);
}

TEST(ChatTemplate, RendersAsTransformersDoes) {
  const Json golden = Json::read_file(kData + "/template_golden.json");
  size_t count = 0;
  for (const Json& c : golden.at("cases").as_array()) {
    const std::string& name = c.at("template").as_string();
    RenderOptions options;
    options.add_generation_prompt = c.at("add_generation_prompt").as_bool();
    if (const Json* tools = c.get("tools")) options.tools = *tools;
    options.extra = c.at("extra");
    const auto t = ChatTemplate::from_source(read_file(kData + "/" + name), name, golden.at("tokens"));
    EXPECT_EQ(t.render(c.at("messages"), options), c.at("text").as_string()) << name << " case " << count;
    ++count;
  }
  EXPECT_GE(count, 35u);
}

TEST(ChatTemplate, OneTurnIsTheTextOfTheReference) {
  auto hi = [](const char* name) { return ChatTemplate::from_source(read_file(kData + "/" + name), name).render(kHi); };
  EXPECT_EQ(hi("chatml_vision.jinja"), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(hi("chatml_default_system.jinja"),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, VisionIdsAreCountedWhenAsked) {
  const auto t = ChatTemplate::from_source(read_file(kData + "/chatml_vision.jinja"), "t");
  const Json messages = Json::parse(R"([{"role":"user","content":[{"image":"a"},{"image":"b"}]}])", "test");
  RenderOptions options;
  EXPECT_EQ(t.render(messages, options).find("Picture"), std::string::npos);
  options.add_vision_id = true;
  EXPECT_NE(t.render(messages, options).find("Picture 2: <|vision_start|>"), std::string::npos);
}

TEST(ChatTemplate, NumbersPrintAsInPython) {
  EXPECT_EQ(render_text("{{ x | tojson }}", Json::parse(R"({"x": [1.0, 1e16, 123456789012345680.0, 1e-5, 0.0001, 1e100, -0.5, 9007199254740993]})", "t")),
            "[1.0, 1e+16, 1.2345678901234568e+17, 1e-05, 0.0001, 1e+100, -0.5, 9007199254740993]");
}

TEST(ChatTemplate, TheClockOfTheTemplateIsTheLocalOne) {
  const std::time_t before = std::time(nullptr);
  const std::string text = render_text("{{ strftime_now('%d %b %Y') }}");
  const std::time_t after = std::time(nullptr);
  auto day = [](std::time_t at) {
    std::tm parts{};
    localtime_r(&at, &parts);
    char out[64];
    return std::string(out, std::strftime(out, sizeof out, "%d %b %Y", &parts));
  };
  EXPECT_TRUE(text == day(before) || text == day(after)) << text;
}

TEST(ChatTemplate, ErrorsNameFileAndLine) {
  const std::string syntax = error_of([] { (void)ChatTemplate::from_source("a\n{% if %}\n", "m/t.jinja"); }, ErrorKind::bad_file);
  EXPECT_TRUE(syntax.starts_with("m/t.jinja: line 2: ")) << syntax;
  const std::string render = error_of([] { (void)render_text("\n\n{{ messages.x.y.z }}"); }, ErrorKind::bad_file);
  EXPECT_TRUE(render.starts_with("t.jinja: line 3: ")) << render;
  const std::string raised = error_of([] { (void)render_text("\n{{ raise_exception('roles must alternate') }}"); }, ErrorKind::usage);
  EXPECT_EQ(raised, "t.jinja: line 2: roles must alternate");
  EXPECT_NE(error_of([] { (void)render_text("{{ namespace | tojson }}"); }, ErrorKind::bad_file), "");
}

TEST(ChatTemplate, EndlessRecursionIsAnError) {
  (void)error_of([] { (void)render_text("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"); }, ErrorKind::bad_file);
}

TEST_F(ChatTemplateFiles, TheFirstPlaceWins) {
  EXPECT_FALSE(ChatTemplate::in_directory(path_));
  EXPECT_NE(error_of([&] { (void)render(); }, ErrorKind::not_found).find("no chat template"), std::string::npos);
  write("processor_config.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(render(), "processor");
  write("tokenizer_config.json", R"({"chat_template": "config {{ eos_token }}", "eos_token": {"content": "</s>"}})");
  EXPECT_EQ(render(), "config </s>");
  write("chat_template.json", R"({"chat_template": "json {{ eos_token }}"})");
  EXPECT_EQ(render(), "json </s>");
  write("chat_template.jinja", "jinja {{ bos_token }}{{ eos_token }}\n");
  EXPECT_EQ(render(), "jinja </s>");
  EXPECT_TRUE(ChatTemplate::in_directory(path_));
}

TEST_F(ChatTemplateFiles, NamedTemplatesAreChosenByToolsOrName) {
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  const auto t = ChatTemplate::from_directory(path_);
  RenderOptions options;
  EXPECT_EQ(t.render(kHi, options), "d");
  options.tools = Json::array();
  EXPECT_EQ(t.render(kHi, options), "t");
  options.name = "rag";
  EXPECT_NE(error_of([&] { (void)t.render(kHi, options); }, ErrorKind::usage).find("default, tool_use"), std::string::npos);
}

TEST_F(ChatTemplateFiles, ErrorsOfJsonFilesNameFileAndKey) {
  write("tokenizer_config.json", R"({"chat_template": "{{ 1 +"})");
  EXPECT_TRUE(error_of([&] { (void)render(); }, ErrorKind::bad_file).starts_with(path_ + "/tokenizer_config.json: chat_template: line 1: "));
  write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_TRUE(error_of([&] { (void)render(); }, ErrorKind::bad_file).starts_with(path_ + "/tokenizer_config.json: chat_template"));
}

}  // namespace
}  // namespace statera
