// The conversation loop over a scripted person and a scripted model.
#include "cli/support/repl.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/error.h"

namespace statera {
namespace {

class ReplTest : public testing::Test {
 protected:
  // Runs the lines; the model answers "answer N".
  void run(std::deque<std::string> lines, std::string system = "", std::vector<std::string> images = {}) {
    ReplIo io;
    io.read = [&](const std::string&) -> std::optional<std::string> {
      if (lines.empty()) return std::nullopt;
      std::string line = lines.front();
      lines.pop_front();
      return line;
    };
    io.write = [this](const std::string& text) { shown += text; };
    io.interrupt = &interrupt;
    Repl repl(
        [this](const Conversation& c, const std::function<void(const std::string&)>& on_text) {
          asked.push_back(c);
          if (fail) throw Error(ErrorKind::not_found, "no.png: not there");
          Answer a;
          a.text = "answer " + std::to_string(asked.size());
          a.finish = finish;
          on_text(a.text);
          return a;
        },
        io, std::move(system), std::move(images), {});
    repl.run();
    left = lines.size();
    end = repl.conversation();
  }
  std::string shown;
  std::vector<Conversation> asked;
  Conversation end;
  size_t left = 0;
  bool fail = false;
  FinishReason finish = FinishReason::stop;
  std::atomic<bool> interrupt{false};
};

TEST_F(ReplTest, HistoryGrowsTurnByTurn) {
  run({"one", "", "two"}, "be brief");
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[0].messages().dump(), R"([{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}])");
  EXPECT_EQ(asked[1].messages().as_array().size(), 4u);
  EXPECT_EQ(asked[1].messages().as_array()[2].at("content").as_string(), "answer 1");
  EXPECT_EQ(end.messages().as_array().size(), 5u);
  EXPECT_EQ(shown, "answer 1\nanswer 2\n");
}

TEST_F(ReplTest, PicturesGoWithTheNextMessageOnly) {
  run({"/image b.png", "what?", "and now?"}, "", {"a.png"});
  EXPECT_EQ(asked[0].media().size(), 2u);
  EXPECT_EQ(asked[1].media().size(), 2u) << "those of the first message, in the history";
  EXPECT_TRUE(asked[1].messages().as_array().back().at("content").is_string());
}

TEST_F(ReplTest, ResetForgetsAndExitLeaves) {
  run({"one", "/reset", "two", "/exit", "three"});
  EXPECT_EQ(asked[1].messages().as_array().size(), 1u);
  EXPECT_EQ(left, 1u);
}

TEST_F(ReplTest, AnErrorLeavesTheConversationAsItWas) {
  fail = true;
  run({"/image no.png", "look"});
  EXPECT_TRUE(end.empty());
  EXPECT_EQ(shown, "error: no.png: not there\n");
}

TEST_F(ReplTest, AStoppedAnswerIsKeptAndTheFlagCleared) {
  finish = FinishReason::cancelled;
  run({"one"});
  EXPECT_EQ(end.messages().as_array().size(), 2u);
  EXPECT_FALSE(interrupt);
  EXPECT_NE(shown.find("[stopped]"), std::string::npos);
}

TEST_F(ReplTest, UnknownCommandsNameTheNearestAndLinesGoOn) {
  run({"/imag x", "/image", "a\\", "b"});
  EXPECT_NE(shown.find("unknown command /imag; did you mean \"/image\"?"), std::string::npos);
  EXPECT_NE(shown.find("/image needs a path"), std::string::npos);
  EXPECT_EQ(asked.at(0).messages().as_array()[0].at("content").as_string(), "a\nb");
}

}  // namespace
}  // namespace statera
