// Flags bound from option structs, help, errors and exit codes of the program around the commands.
#include "cli/support/command.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "api/version.h"
#include "base/error.h"

namespace statera {
namespace {

struct Sample {
  std::string model;
  std::vector<std::string> image;
  std::string out;
  bool sym = true, hidden = false;
  int64_t w_group = 128;
  double temperature = 0.7;
  std::optional<int64_t> seed;
  std::optional<bool> packed;
  static constexpr std::string_view positional[] = {"model"};
  static constexpr std::string_view required[] = {"out"};
  template <class V>
  void fields(V& v) {
    v("image", image, "a picture");
    v("out", out, "where to write");
    v("sym", sym, "symmetric weights");
    v("hidden", hidden, "hidden states | too");
    v("w_group", w_group, "columns per scale");
    v("temperature", temperature, "of sampling");
    v("seed", seed, "of sampling");
    v("packed", packed, "packed weights");
    v("model", model, "checkpoint folder");
  }
};

Sample parse(std::vector<std::string> args) {
  Sample s;
  std::vector<Flag> flags;
  bind_flags(s, flags);
  parse_flags(flags, args);
  return s;
}

std::string message_of(std::vector<std::string> args) {
  try {
    parse(std::move(args));
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    return e.message();
  }
  return "no error";
}

TEST(Flags, EveryKindOfMemberIsRead) {
  Sample s = parse({"dir", "--image", "a", "--out=o", "--no-sym", "--hidden", "--w-group", "-1", "--temperature", "0", "--image", "[b,c]",
                    "--seed", "7", "--no-packed"});
  EXPECT_EQ(s.model, "dir");
  EXPECT_EQ(s.image, (std::vector<std::string>{"a", "[b,c]"}));
  EXPECT_EQ(s.out, "o");
  EXPECT_FALSE(s.sym);
  EXPECT_TRUE(s.hidden);
  EXPECT_EQ(s.w_group, -1);
  EXPECT_EQ(s.temperature, 0);
  EXPECT_EQ(s.seed, 7);
  EXPECT_EQ(s.packed, false);
}

TEST(Flags, ASwitchMayBeFollowedByTrueOrFalse) {
  EXPECT_FALSE(parse({"m", "--out", "o", "--sym", "False"}).sym);
  EXPECT_TRUE(parse({"m", "--out", "o", "--no-sym", "--sym", "true"}).sym);
  EXPECT_FALSE(parse({"--hidden", "True", "--hidden", "FALSE", "m", "--out", "o"}).hidden);
  EXPECT_EQ(parse({"--packed", "False", "m", "--out", "o"}).packed, false);
  EXPECT_TRUE(parse({"--out", "o", "--hidden", "m"}).hidden);  // what follows is another argument
  EXPECT_EQ(parse({"--out", "o", "--hidden", "m"}).model, "m");
  EXPECT_EQ(parse({"m", "--out", "--hidden", "--no-sym"}).out, "--hidden");  // a value, no switch
  EXPECT_EQ(message_of({"m", "--out", "--hidden", "True"}), "unexpected argument \"True\"");
  EXPECT_EQ(message_of({"m", "--out", "o", "--no-sym", "False"}), "unexpected argument \"False\"");
  EXPECT_EQ(message_of({"m", "--out", "o", "--sym=maybe"}), "--sym: expected true or false, got \"maybe\"");
}

TEST(Flags, WordsAreJoinedByDashesOrUnderscores) {
  EXPECT_EQ(parse({"m", "--out", "o", "--w_group", "32"}).w_group, 32);
  EXPECT_EQ(parse({"m", "--out", "o", "--w_group=32", "--w-group", "64"}).w_group, 64);
}

struct Asking {
  int64_t n_samples = 128;
  bool sym = true;
  std::vector<std::string> given;
  template <class V>
  void fields(V& v) {
    v("n_samples", n_samples, "samples");
    v("sym", sym, "symmetric");
  }
};

TEST(Flags, AStructMayAskWhichWereGiven) {
  Asking options;
  std::vector<Flag> flags;
  bind_flags(options, flags);
  parse_flags(flags, {"--n-samples", "128"});
  EXPECT_EQ(options.given, std::vector<std::string>{"n_samples"});
}

TEST(Flags, WhatIsNotGivenKeepsItsDefault) {
  Sample s = parse({"--out", "o", "dir"});
  EXPECT_TRUE(s.sym);
  EXPECT_EQ(s.w_group, 128);
  EXPECT_FALSE(s.seed.has_value());
  EXPECT_FALSE(s.packed.has_value());
  EXPECT_TRUE(s.image.empty());
}

TEST(Flags, ValuesMayBeginWithDashesOrBeEmpty) {
  EXPECT_EQ(parse({"m", "--out", "--weird"}).out, "--weird");
  EXPECT_EQ(parse({"m", "--out", ""}).out, "");
  EXPECT_EQ(parse({"m", "--out=a=b"}).out, "a=b");
}

TEST(Flags, TheLastOfARepeatedFlagCounts) { EXPECT_EQ(parse({"m", "--out", "a", "--out", "b"}).out, "b"); }

TEST(Flags, AnUnknownFlagNamesTheNearest) {
  EXPECT_EQ(message_of({"m", "--out", "o", "--tempreature", "1"}), "unknown flag --tempreature; did you mean \"--temperature\"?");
  EXPECT_EQ(message_of({"m", "--out", "o", "--no-sim"}), "unknown flag --no-sim; did you mean \"--no-sym\"?");
  EXPECT_EQ(message_of({"m", "--out", "o", "--zzzzzzzzzzz=3"}), "unknown flag --zzzzzzzzzzz");
}

TEST(Flags, StrayMissingAndMalformedArgumentsAreNamed) {
  EXPECT_EQ(message_of({"m", "n", "--out", "o"}), "unexpected argument \"n\"");
  EXPECT_EQ(message_of({"--out", "o"}), "missing MODEL: checkpoint folder");
  EXPECT_EQ(message_of({"m"}), "missing --out: where to write");
  EXPECT_EQ(message_of({"m", "--out", "o", "--w-group", "12x"}), "--w-group: expected a whole number, got \"12x\"");
  EXPECT_EQ(message_of({"m", "--out", "o", "--temperature", "warm"}), "--temperature: expected a number, got \"warm\"");
  EXPECT_NE(message_of({"m", "--out"}).find("--out"), std::string::npos);
}

TEST(Flags, HelpShowsDefaultsAndTheWayToTurnASwitchOff) {
  Sample s;
  std::vector<Flag> flags;
  bind_flags(s, flags);
  EXPECT_EQ(positionals_usage(flags), " MODEL");
  std::string help = flags_help(flags);
  EXPECT_EQ(help.find("  MODEL "), 0u);
  EXPECT_NE(help.find("--no-sym "), std::string::npos);
  EXPECT_NE(help.find("--hidden "), std::string::npos);
  EXPECT_NE(help.find("columns per scale (default: 128)"), std::string::npos);
  EXPECT_NE(help.find("where to write (required)"), std::string::npos);
  EXPECT_NE(flags_markdown(flags).find("hidden states \\| too"), std::string::npos);
}

int run_sample(Invocation& in) {
  Sample s;
  if (!in.parse(s)) return 0;
  if (s.out == "bug") check(false, "broken");
  if (s.out == "alloc") throw std::bad_alloc();
  if (s.out == "file") throw Error(ErrorKind::bad_file, "f: two\nlines");
  if (s.out == "closed") throw OutputClosed{};
  Json report;
  report.set("group", s.w_group);
  in.show(report, "group " + std::to_string(s.w_group));
  return 0;
}
const Command kSample{"sample", "does little", "statera sample m --out o", run_sample};
const Command kVerb{"pot boil", "boils", "statera pot boil m --out o", kSample.run};
const Command* const kTable[] = {&kSample, &kVerb};

struct Outcome {
  int code;
  std::string out, err;
};
Outcome run(std::vector<std::string> args) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  int code = run_program(kTable, args);
  std::string out = testing::internal::GetCapturedStdout();
  return {code, out, testing::internal::GetCapturedStderr()};
}

TEST(Program, ResultsAreTextOrJson) {
  EXPECT_EQ(run({"sample", "m", "--out", "o"}).out, "group 128\n");
  auto r = run({"sample", "m", "--out", "o", "--w-group", "32", "--json"});
  EXPECT_EQ(Json::parse(r.out, "out").at("group").as_int(), 32);
  EXPECT_EQ(r.code, 0);
}

TEST(Program, AnErrorIsOneLineAndTheExitCodeOfItsKind) {
  auto r = run({"sample", "m", "--out", "file"});
  EXPECT_EQ(r.code, exit_code(ErrorKind::bad_file));
  EXPECT_EQ(r.err, "statera: f: two lines\n");
  EXPECT_EQ(r.out, "");
  auto j = run({"sample", "m", "--out", "file", "--json"});
  EXPECT_EQ(j.err, "");
  EXPECT_EQ(Json::parse(j.out, "out").at("error").at("kind").as_string(), "bad_file");
  EXPECT_EQ(run({"sample", "m", "--out", "alloc"}).code, exit_code(ErrorKind::memory));
  EXPECT_EQ(run({"sample", "m", "--out", "closed"}).code, 141);
}

TEST(Program, ABugIsAnInternalError) {
  auto r = run({"sample", "m", "--out", "bug"});
  EXPECT_EQ(r.code, 70);
  EXPECT_EQ(r.err.find("statera: internal error: "), 0u);
}

TEST(Program, ListsCommandsAndNamesTheNearest) {
  EXPECT_NE(run({}).out.find("sample           does little"), std::string::npos);
  EXPECT_EQ(run({"--version"}).out, "statera " + std::string(kVersion) + "\n");
  EXPECT_EQ(run({"simple"}).err, "statera: unknown command \"simple\"; did you mean \"sample\"?\n");
  EXPECT_EQ(run({"simple"}).code, exit_code(ErrorKind::usage));
  EXPECT_NE(run({"sample", "--help"}).out.find("Usage: statera sample MODEL [flags]"), std::string::npos);
  EXPECT_EQ(run({"sample", "m", "--out", "o", "--progress", "loud"}).code, exit_code(ErrorKind::usage));
  EXPECT_EQ(run({"sample", "m", "--out", "o", "--threads", "0"}).code, exit_code(ErrorKind::usage));
}

TEST(Program, ACommandMayHaveTwoWords) {
  EXPECT_EQ(run({"pot", "boil", "m", "--out", "o"}).out, "group 128\n");
  EXPECT_NE(run({"help", "pot", "boil"}).out.find("Usage: statera pot boil MODEL [flags]"), std::string::npos);
  EXPECT_EQ(run({"pot"}).err, "statera: \"pot\" needs another word: statera pot boil\n");
  EXPECT_EQ(run({"pot", "--help"}).code, exit_code(ErrorKind::usage));
  EXPECT_EQ(run({"pot", "fry"}).err, "statera: unknown command \"pot fry\" (pot boil)\n");
}

TEST(Program, DocumentationHoldsEveryFlag) {
  std::string text = commands_markdown(kTable);
  for (const std::string& name : field_names<Sample>()) {
    if (name == "model" || name == "sym") continue;
    EXPECT_NE(text.find("`--" + split(name, '_')[0]), std::string::npos) << name;
  }
  EXPECT_NE(text.find("`--no-sym`"), std::string::npos);
  EXPECT_NE(text.find("## Flags of every command"), std::string::npos);
}

TEST(Version, IsTheOneOfTheBuild) {
  std::ifstream in(std::string(STATERA_SOURCE_DIR) + "/CMakeLists.txt");
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_NE(text.str().find("project(statera VERSION " + std::string(kVersion) + " "), std::string::npos);
}

}  // namespace
}  // namespace statera
