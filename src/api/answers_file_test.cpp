// Answers files after clean ends and after kills.
#include "api/answers_file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

class AnswersFileTest : public testing::Test {
 protected:
  AnswersFileTest() : path(testing::TempDir() + "answers_" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl") {
    std::remove(path.c_str());
  }
  void write(const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
  void append(const std::string& id) {
    AnswersFile file(path);
    Json line = Json::object();
    line.set("id", id);
    file.append(line);
  }
  std::string path;
};

TEST_F(AnswersFileTest, LinesAreAppendedAndFoundAgain) {
  append("a");
  append("b");
  EXPECT_EQ(read_file(path), "{\"id\": \"a\"}\n{\"id\": \"b\"}\n");
  EXPECT_EQ(AnswersFile(path).ids(), (std::set<std::string>{"\"a\"", "\"b\""}));
}

TEST_F(AnswersFileTest, ACutLastLineIsRemoved) {
  write("{\"id\": 1, \"text\": \"x\"}\n{\"id\": 2, \"te");
  append("c");
  EXPECT_EQ(read_file(path), "{\"id\": 1, \"text\": \"x\"}\n{\"id\": \"c\"}\n");
  EXPECT_EQ(AnswersFile(path).ids(), (std::set<std::string>{"1", "\"c\""}));
}

TEST_F(AnswersFileTest, AFileThatIsNoneIsRefusedAndLeftAlone) {
  for (const std::string text : {"hello\nworld", "[1]\n", "{\"text\": 1}\n"}) {
    write(text);
    EXPECT_THROW(AnswersFile{path}, Error) << text;
    EXPECT_EQ(read_file(path), text);
  }
  EXPECT_THROW(AnswersFile("/nowhere/at/all.jsonl"), Error);
}

}  // namespace
}  // namespace statera
