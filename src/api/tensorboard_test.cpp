// Event files against bytes worked out by hand and the published check values of CRC-32C.
#include "api/tensorboard.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/test_files.h"

namespace statera {
namespace {

std::string bytes(std::initializer_list<int> list) {
  std::string out;
  for (int b : list) out += static_cast<char>(b);
  return out;
}

Json line(int64_t step, double loss) {
  Json out = Json::object();
  out.set("step", step);
  out.set("loss", loss);
  return out;
}

TEST(Crc32c, GivesThePublishedCheckValues) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, EventsAreTheBytesOfTheirProtobufMessages) {
  EXPECT_EQ(first_event(1.5), bytes({0x09, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F, 0x1A, 13}) + "brain.Event:2");
  // wall_time 2, step 300 as a varint of two bytes, one value of 6 + 5 bytes
  EXPECT_EQ(scalars_event(2, 300, {{"loss", 0.5}}),
            bytes({0x09, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x10, 0xAC, 0x02, 0x2A, 13, 0x0A, 11, 0x0A, 4}) + "loss" + bytes({0x15, 0, 0, 0, 0x3F}));
}

TEST(EventFile, ARecordIsLengthDataAndTheirMaskedChecksums) {
  const std::string record = event_record("123456789");
  ASSERT_EQ(record.size(), 8u + 4 + 9 + 4);
  EXPECT_EQ(record.substr(0, 8), bytes({9, 0, 0, 0, 0, 0, 0, 0}));
  // 0xE3069283 turned right by 15 bits, plus 0xA282EAD8
  EXPECT_EQ(record.substr(21), bytes({0xE5, 0xB0, 0x8A, 0xC7}));
  EXPECT_EQ(event_records(record + record), (std::vector<std::string_view>{"123456789", "123456789"}));
}

TEST(EventFile, SpoiltAndTornRecordsEndTheReading) {
  const std::string whole = event_record("one") + event_record("two");
  for (size_t cut = 20; cut < whole.size(); ++cut) EXPECT_EQ(event_records(whole.substr(0, cut)).size(), 1u) << cut;
  for (size_t at = 0; at < 19; ++at) {
    std::string spoilt = whole;
    spoilt[at] = static_cast<char>(spoilt[at] ^ 4);
    EXPECT_TRUE(event_records(spoilt).empty()) << at;
  }
}

TEST(EventFile, NumbersOfALineGetTheNamesOfTransformers) {
  const TempDir dir;
  const EventFile file(dir / "runs", "run", 0);
  Json both = line(3, 0.25);
  both.set("lr", 1.0);
  both.set("note", "text");
  file.add(both);
  Json held = Json::object();
  held.set("step", 4);
  held.set("eval_loss", 2.0);
  file.add(held);
  Json skipped = Json::object();
  skipped.set("step", 5);
  skipped.set("skipped", "a bad item");
  file.add(skipped);
  const std::string text = read_file(file.path());
  const auto events = event_records(text);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1].substr(9), scalars_event(0, 3, {{"train/loss", 0.25}, {"train/learning_rate", 1}}).substr(9));
  EXPECT_EQ(events[2].substr(9), scalars_event(0, 4, {{"eval/loss", 2}}).substr(9));
}

TEST(EventFile, ALaterRunGoesOnBehindItsStepAndDropsWhatWasTorn) {
  const TempDir dir;
  const EventFile file(dir / "runs", "run", 0);
  for (int64_t step : {1, 2, 200}) file.add(line(step, 1));
  const std::string before = read_file(file.path());
  append_to_file(file.path(), event_record("torn").substr(0, 9));
  const EventFile again(dir / "runs", "./run", 2);
  EXPECT_EQ(again.path(), file.path());
  again.add(line(3, 7));
  const std::string text = read_file(file.path());
  const auto events = event_records(text);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(text.substr(0, 40), before.substr(0, 40));
  for (int64_t step : {0, 1, 2, 3}) EXPECT_EQ(event_step(events[static_cast<size_t>(step)]), step);
  EXPECT_NE(EventFile(dir / "runs", "another", 0).path(), file.path());
}

TEST(EventFile, AFileOfSomethingElseIsRefused) {
  const TempDir dir;
  const std::string path = EventFile(dir / "runs", "run", 0).path();
  write_file_atomic(path, "no records in this one, only text");
  EXPECT_THROW(EventFile(dir / "runs", "run", 0), Error);
}

}  // namespace
}  // namespace statera
