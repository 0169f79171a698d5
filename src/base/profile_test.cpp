// Spans are noted while a recorder lives, from every thread, and cost no description otherwise.
#include "base/profile.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "base/error.h"
#include "base/threads.h"

namespace statera::profile {
namespace {

TEST(Profile, WithoutARecorderNothingIsDescribed) {
  bool described = false;
  { const Span span("op", [&] { return described = true, Description{}; }); }
  EXPECT_FALSE(described);
  Recorder recorder;
  EXPECT_TRUE(recorder.take().empty());
}

TEST(Profile, ASpanIsNotedWithItsNameWorkAndTimes) {
  Recorder recorder;
  { const Span outer("stage"); const Span inner("op", [] { return Description{"down_proj", {8, 4, 2, 1}}; }); }
  const std::vector<Event> events = recorder.take();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_STREQ(events[0].kind, "op");
  EXPECT_EQ(events[0].name, "down_proj");
  EXPECT_EQ(events[0].work.flop, 8);
  EXPECT_EQ(events[0].work.weight_bytes, 2);
  EXPECT_LE(events[1].begin, events[0].begin);
  EXPECT_LE(events[0].end, events[1].end);
  EXPECT_TRUE(recorder.take().empty());
}

TEST(Profile, ThreadsHaveNumbersOfTheirOwn) {
  Recorder recorder;
  { const Span span("here"); }
  std::thread([] { const Span span("there"); }).join();
  const std::vector<Event> events = recorder.take();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_NE(events[0].thread, events[1].thread);
}

TEST(Profile, ASpanThatOutlivesItsRecorderIsNotNoted) {
  auto recorder = std::make_unique<Recorder>();
  auto span = std::make_unique<Span>("late");
  recorder.reset();
  span.reset();
  Recorder next;
  EXPECT_TRUE(next.take().empty());
}

TEST(Profile, TwoRecordersAtOnceAreABug) {
  Recorder first;
  EXPECT_THROW(Recorder second, Bug);
  { const Span span("op"); }
  EXPECT_EQ(first.take().size(), 1u);
}

TEST(Profile, TheOutermostParallelLoopIsOneSpan) {
  const int before = num_threads();
  set_num_threads(2);
  Recorder recorder;
  parallel_for(64, 1, [](int64_t, int64_t) { parallel_for(8, 1, [](int64_t, int64_t) {}); });
  const std::vector<Event> events = recorder.take();
  set_num_threads(before);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_STREQ(events[0].kind, "pool");
}

}  // namespace
}  // namespace statera::profile
