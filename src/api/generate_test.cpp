// Files of requests over the bundled example: order, provenance, faults of single requests, and going on after a kill at any byte.
#include "api/generate.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "api/version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"

namespace statera {
namespace {

const std::string kExample = std::string(STATERA_SOURCE_DIR) + "/examples/tiny-qwen3-vl";
const std::string kPicture = std::string(STATERA_SOURCE_DIR) + "/examples/pictures/chart.png";

class GenerateFile : public testing::Test {
 protected:
  GenerateFile()
      : engine(Engine::open([] {
          EngineOptions o;
          o.model = kExample;
        o.dtype = "fp32";  // bf16 rows round differently in batches of different sizes
          o.max_running = 2;
          return o;
        }())) {
    std::string base = testing::TempDir() + "generate_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    file.input = base + ".requests.jsonl";
    file.output = base + ".answers.jsonl";
    std::remove(file.output.c_str());
    options.max_new_tokens = 5;
    options.sampling.temperature = 1;
    options.sampling.seed = 40;
  }
  void requests(const std::string& text) { write_text(file.input, text); }
  static void write_text(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
  GenerateReport run(const std::atomic<bool>* cancel = nullptr) { return generate_file(engine, file, options, {}, {}, cancel); }
  std::vector<Json> answers() {
    std::vector<Json> out;
    for (const std::string& line : split(read_file(file.output), '\n')) {
      if (!line.empty()) out.push_back(Json::parse(line, "answers"));
    }
    return out;
  }
  Engine engine;
  GenerateFileOptions file;
  GenerateOptions options;
};

TEST_F(GenerateFile, AnswersComeInTheOrderOfTheInputWithTheirProvenance) {
  requests(R"({"id": "long", "prompt": "One", "max_new_tokens": 9})"
           "\n\n"
           R"({"prompt": "Two", "max_new_tokens": 1})"
           "\n"
           R"({"id": "own seed", "prompt": "Two", "seed": 3, "images": [")" +
           kPicture + "\"]}\n");
  GenerateReport report = run();
  EXPECT_EQ(report.answered, 3);
  auto a = answers();
  ASSERT_EQ(a.size(), 3u);
  EXPECT_EQ(a[0].at("id").as_string(), "long");
  EXPECT_EQ(a[1].at("usage").at("completion_tokens").as_int(), 1);
  EXPECT_EQ(a[0].at("seed").as_int(), 40);
  EXPECT_EQ(a[1].at("seed").as_int(), 41);
  EXPECT_EQ(a[2].at("seed").as_int(), 3);
  EXPECT_EQ(a[2].at("model").as_string(), kExample);
  EXPECT_EQ(a[2].at("version").as_string(), kVersion);
  EXPECT_EQ(a[0].at("finish_reason").as_string(), "length");
}

TEST_F(GenerateFile, AFaultOfOneRequestStandsInItsLine) {
  requests(R"({"id": 1, "prompt": "x", "images": ["not there.png"]})"
           "\n"
           R"({"id": 2, "prompt": "x", "temprature": 1})"
           "\n"
           R"({"id": 3, "prompt": "x"})"
           "\n");
  GenerateReport report = run();
  EXPECT_EQ(report.failed, 2);
  EXPECT_EQ(report.answered, 1);
  auto a = answers();
  EXPECT_EQ(a[0].at("error").at("kind").as_string(), "not_found");
  EXPECT_NE(a[1].at("error").at("message").as_string().find("did you mean \"temperature\"?"), std::string::npos);
  EXPECT_TRUE(a[2].has("text"));
}

TEST_F(GenerateFile, ARunCutAtAnyByteGoesOnToTheSameFile) {
  std::string text;
  for (int i = 0; i < 5; ++i) text += "{\"id\": " + std::to_string(i) + ", \"prompt\": \"Say " + std::to_string(i) + "\"}\n";
  requests(text);
  run();
  const std::string whole = read_file(file.output);
  for (size_t cut = 0; cut < whole.size(); cut += whole.size() / 7) {
    write_text(file.output, whole.substr(0, cut));
    GenerateReport report = run();
    EXPECT_EQ(read_file(file.output), whole) << cut;
    EXPECT_EQ(report.skipped + report.answered, 5);
  }
}

TEST_F(GenerateFile, AnswersOfOtherRequestsAreRefused) {
  requests("{\"id\": 1, \"prompt\": \"x\"}\n");
  write_text(file.output, "{\"id\": 9, \"text\": \"y\"}\n");
  EXPECT_THROW(run(), Error);
  EXPECT_EQ(read_file(file.output), "{\"id\": 9, \"text\": \"y\"}\n");
}

TEST_F(GenerateFile, AnInterruptedRunKeepsWhatItHasAndLeavesTheEngineUsable) {
  requests("{\"id\": 1, \"prompt\": \"x\"}\n{\"id\": 2, \"prompt\": \"y\"}\n");
  std::atomic<bool> stop{true};
  try {
    run(&stop);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::interrupted);
  }
  EXPECT_EQ(read_file(file.output), "");
  EXPECT_EQ(run().answered, 2);
}

TEST_F(GenerateFile, TheSameConversationBesideOthersGetsTheSameAnswer) {
  GenerateOptions greedy = options;
  greedy.sampling.temperature = 0;
  greedy.max_new_tokens = 12;
  auto ask = [](const std::string& text) { return Conversation::user(text, {kPicture}); };
  Answer alone = engine.chat(ask("What is shown?"), greedy, {});
  engine.submit(ask("Something longer, and quite different"), greedy, {}, {});
  engine.submit(Conversation::user("short"), greedy, {}, {});
  std::string streamed;
  Callbacks callbacks;
  callbacks.on_token = [&](const TokenEvent& e) { streamed += e.text; };
  Answer beside = engine.chat(ask("What is shown?"), greedy, {}, callbacks);
  EXPECT_EQ(beside.ids, alone.ids);
  EXPECT_EQ(streamed, alone.text);
}

}  // namespace
}  // namespace statera
