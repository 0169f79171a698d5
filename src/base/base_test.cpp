// Laws of the base helpers: JSON round trips, nearest names, UTF-8 cuts, the pool, atomic files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/fields.h"
#include "base/file.h"
#include "base/json.h"
#include "base/pattern.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/strings.h"
#include "base/threads.h"

namespace statera {
namespace {

std::string temp_path(const char* name) { return testing::TempDir() + "/statera_base_" + std::to_string(::getpid()) + "_" + name; }

TEST(JsonValue, ParsedTextPrintsBackEqual) {
  auto j = Json::parse(R"({"a": [1, 2.5, -3, null, true, "x\ny"], "b": {"c": 9007199254740993}, "u": "é"})", "t");
  EXPECT_EQ(j, Json::parse(j.dump(), "t"));
  EXPECT_EQ(j, Json::parse(j.dump(2), "t"));
  EXPECT_EQ(j.at("b").at("c").as_int(), 9007199254740993);  // exact, not through a double
}

TEST(JsonValue, TheLastOfEqualKeysWins) { EXPECT_EQ(Json::parse(R"({"a": 1, "a": 2})", "t").at("a").as_int(), 2); }

TEST(JsonValue, FaultsNameTheSource) {
  try {
    Json::parse("{\"a\": ", "some.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_file);
    EXPECT_NE(e.message().find("some.json"), std::string::npos);
  }
}

TEST(JsonValue, DeepNestingIsAnErrorNotACrash) { EXPECT_THROW(Json::parse(std::string(100000, '['), "t"), Error); }

TEST(JsonValue, NonFiniteAndInvalidUtf8StillPrintValidJson) {
  Json j = Json::object();
  j.set("x", 1.0 / 0.0);
  j.set("s", std::string("\xff\xfe"));
  EXPECT_NO_THROW(Json::parse(j.dump(), "t"));
}

struct Options {
  int64_t w_bits = 4;
  std::string method = "rtn";
  std::optional<int64_t> seed;
  std::vector<std::string> ignore;
  template <class V>
  void fields(V& v) {
    v("w_bits", w_bits, "bits");
    v("method", method, "method");
    v("seed", seed, "seed");
    v("ignore", ignore, "patterns");
  }
};

TEST(Fields, JsonRoundTripKeepsEveryMember) {
  Options a{3, "awq", 7, {"x", "y"}};
  Options b;
  fields_from_json(fields_to_json(a), b, "t");
  EXPECT_TRUE(fields_equal(a, b));
  EXPECT_FALSE(fields_equal(a, Options{}));
}

TEST(Fields, AnUnknownKeyNamesTheNearest) {
  Options o;
  try {
    fields_from_json(Json::parse(R"({"w_bit": 3})", "t"), o, "recipe.yaml");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("did you mean \"w_bits\""), std::string::npos) << e.message();
  }
}

TEST(Strings, Utf8IsCutOnlyBetweenCharacters) {
  std::string s = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  for (size_t n = 0; n <= s.size(); ++n) {
    size_t keep = complete_utf8_prefix(std::string_view(s).substr(0, n));
    EXPECT_TRUE(keep == 0 || keep == 1 || keep == 3 || keep == 6 || keep == 10) << n;
    EXPECT_LE(n - keep, 3u);
  }
}

TEST(Strings, SizesReadNaturally) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_seconds(75), "1m15s");
  EXPECT_EQ(trim("  a b\n"), "a b");
  EXPECT_EQ(join(split("a,b,,c", ','), "|"), "a|b||c");
}

TEST(Threads, EveryIndexRunsOnceForAnyThreadCount) {
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    std::vector<std::atomic<int>> seen(1003);
    parallel_for(1003, 7, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) ++seen[i];
    });
    for (auto& s : seen) EXPECT_EQ(s.load(), 1);
  }
  set_num_threads(2);
}

TEST(Threads, PiecesAreWholeGrainsAndNeverGrow) {
  for (int threads : {2, 3}) {
    set_num_threads(threads);
    for (const auto& [count, grain] : {std::pair<int64_t, int64_t>{1003, 7}, {140, 1}, {24, 1}, {8960, 16}, {9, 8}, {100'000, 3}}) {
      std::mutex mutex;
      std::map<int64_t, int64_t> pieces;
      parallel_for(count, grain, [&](int64_t b, int64_t e) {
        std::lock_guard lock(mutex);
        pieces[b] = e;
      });
      int64_t at = 0, before = (((count + grain - 1) / grain + 4 * threads - 1) / (4 * threads)) * grain;
      for (const auto& [begin, end] : pieces) {
        EXPECT_EQ(begin, at);
        EXPECT_EQ(begin % grain, 0);
        EXPECT_LE(end - begin, before) << count << " in " << grain << " from " << begin;
        before = (end - begin + grain - 1) / grain * grain;
        at = end;
      }
      EXPECT_EQ(at, count);
      EXPECT_LE(before, grain);  // the last
    }
  }
  set_num_threads(2);
}

TEST(Threads, AnExceptionOfAPieceReachesTheCaller) {
  EXPECT_THROW(parallel_for(100, 1, [](int64_t b, int64_t) { if (b >= 50) throw Error(ErrorKind::io, "x"); }), Error);
  std::atomic<int> after{0};
  parallel_for(10, 1, [&](int64_t b, int64_t e) { after += static_cast<int>(e - b); });
  EXPECT_EQ(after.load(), 10);
}

TEST(Threads, NestedCallsRunInline) {
  std::atomic<int> count{0};
  parallel_for(8, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) parallel_for(5, 1, [&](int64_t bb, int64_t ee) { count += static_cast<int>(ee - bb); });
  });
  EXPECT_EQ(count.load(), 40);
}

// Workers of one job may look for work while the next is being set up, and sleep or wake at any moment between.
TEST(Threads, ManySmallJobsInARowFromTwoCallersLoseNoPiece) {
  set_num_threads(3);
  auto call = [] {
    std::vector<std::atomic<int>> seen(64);
    for (int job = 1; job <= 3000; ++job) {
      parallel_for(64, 3, [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) ++seen[static_cast<size_t>(i)];
      });
      for (auto& s : seen) ASSERT_EQ(s.load(), job);
      if (job % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  };
  std::thread other(call);
  call();
  other.join();
  set_num_threads(2);
}

TEST(AtomicFiles, NothingAppearsBeforeCommit) {
  std::string path = temp_path("atomic");
  {
    AtomicFile f(path);
    f.write("abc", 3);
    EXPECT_FALSE(is_file(path));
  }
  EXPECT_FALSE(is_file(path));
  AtomicFile f(path);
  f.write("abcdef", 6);
  f.write_at(1, "X", 1);
  f.commit();
  EXPECT_EQ(read_file(path), "aXcdef");
  EXPECT_THROW(read_file(path, 3), Error);
  MappedFile m(path);
  EXPECT_EQ(m.size(), 6u);
  ::truncate(path.c_str(), 2);
  EXPECT_THROW(m.check_not_truncated(), Error);
  ::unlink(path.c_str());
}

TEST(AtomicFiles, MissingFilesAndFoldersAreClearErrors) {
  EXPECT_THROW(read_file("/nonexistent/x"), Error);
  EXPECT_THROW(MappedFile("/"), Error);
  EXPECT_THROW(AtomicFile("/nonexistent/x"), Error);
}

TEST(Random, NormalsHaveMeanZeroAndVarianceOneWhateverTheOrder) {
  Rng rng(7, hash_name("w"));
  double sum = 0, squares = 0;
  for (uint64_t i = 20000; i-- > 0;) {
    double x = rng.normal_at(i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
  EXPECT_EQ(Rng(7, 1).at(5), Rng(7, 1).at(5));
  EXPECT_NE(Rng(7, 1).at(5), Rng(7, 2).at(5));
}

TEST(ProgressEvents, TheLastEventIsFinishedAndCountsEverything) {
  std::vector<ProgressEvent> seen;
  Progress p("quantize", 10, "bytes", [&](const ProgressEvent& e) { seen.push_back(e); }, 0);
  p.advance(4, "a");
  p.advance(6, "b");
  p.finish();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_TRUE(seen.back().finished);
  EXPECT_EQ(seen.back().done, 10);
  EXPECT_GT(seen.back().rss, 0u);
}

TEST(ProgressRates, ABlockEveryHalfMinuteIsASteadyRate) {
  ProgressRate rate;
  for (int second = 1; second <= 3600; ++second) {
    const double now = rate.at(second, 10.0 * (second / 30));  // 10 units at once every 30 seconds
    if (second >= 120) {
      EXPECT_NEAR(now, 10.0 / 30, 0.25 * 10 / 30) << second;
    }
  }
}

TEST(ProgressRates, FollowAChange) {
  ProgressRate rate;
  double done = 100;
  rate.begin_at(done);
  for (int second = 1; second <= 200; ++second) rate.at(second, done += 1);
  double now = 0;
  for (int second = 201; second <= 450; ++second) now = rate.at(second, done += 5);
  EXPECT_NEAR(now, 5, 0.1);
}

TEST(Patterns, AnchorAsTheirNamesSay) {
  Pattern p("mlp\\.(up|down)");
  EXPECT_TRUE(p.found_in("layers.3.mlp.up_proj"));
  EXPECT_FALSE(p.matches_start("layers.3.mlp.up_proj"));
  EXPECT_TRUE(p.matches_start("mlp.down_proj"));
  EXPECT_FALSE(p.matches("mlp.down_proj"));
  EXPECT_TRUE(p.matches("mlp.down"));
  EXPECT_FALSE(p.found_in(std::string(5000, 'x') + "mlp.up"));
  EXPECT_THROW(Pattern("(unclosed"), Error);
}

TEST(Errors, ContextIsPutInFront) {
  try {
    with_context("model.safetensors", [] { throw Error(ErrorKind::bad_file, "header too large"); });
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "model.safetensors: header too large");
  }
  EXPECT_THROW(check(false, "x"), Bug);
}

}  // namespace
}  // namespace statera
