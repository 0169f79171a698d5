// Zstandard files: whole, in several frames, damaged, cut, and bombs.
#include "data/unpack.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/test_files.h"
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

std::string bomb(int blocks) {
  std::string out;
  for (int i = 0; i < blocks; ++i) out += zst_block(i + 1 == blocks, 1, kZstBlock, "a");
  return zst_frame(out);
}

std::string content(const MappedFile& file) { return {reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())}; }

size_t leftovers() {
  size_t count = 0;
  for (const auto& e : std::filesystem::directory_iterator(std::filesystem::temp_directory_path()))
    count += e.path().filename().string().starts_with("statera-unpacked-");
  return count;
}

class Unpack : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("TMPDIR", std::string(dir / "tmp").c_str(), 1);
    std::filesystem::create_directory(dir / "tmp");
  }
  void TearDown() override {
    EXPECT_EQ(leftovers(), 0u);
    ::unsetenv("TMPDIR");
  }
  TempDir dir;
};

TEST_F(Unpack, FramesFollowOneAnother) {
  write_text(dir / "a.zst", zst_raw("first ") + zst_raw("second"));
  EXPECT_EQ(content(unpack_zstd(dir / "a.zst")), "first second");
}

TEST_F(Unpack, BlocksLargerThanTheBuffersArriveWhole) {
  write_text(dir / "a.zst", bomb(9));
  const MappedFile file = unpack_zstd(dir / "a.zst");
  EXPECT_EQ(content(file), std::string(9 * kZstBlock, 'a'));
}

TEST_F(Unpack, WhatIsNoZstandardOrDamagedOrCutSaysSo) {
  write_text(dir / "text.zst", "just text, not packed");
  EXPECT_EQ(message_of([&] { unpack_zstd(dir / "text.zst"); }).find("bad_file: " + (dir / "text.zst") + ": not readable as Zstandard"), 0u);
  write_text(dir / "empty.zst", "");
  EXPECT_NE(message_of([&] { unpack_zstd(dir / "empty.zst"); }).find("bad_file: "), std::string::npos);
  const std::string whole = zst_raw("some text");
  for (size_t n = 1; n < whole.size(); ++n) {
    write_text(dir / "cut.zst", whole.substr(0, n));
    EXPECT_NE(message_of([&] { unpack_zstd(dir / "cut.zst"); }).find("ends in the middle"), std::string::npos) << n;
  }
  write_text(dir / "tail.zst", whole + "rubbish");
  EXPECT_NE(message_of([&] { unpack_zstd(dir / "tail.zst"); }).find("not readable as Zstandard"), std::string::npos);
  EXPECT_EQ(message_of([&] { unpack_zstd(dir / "none.zst"); }).find("not_found: "), 0u);
}

TEST_F(Unpack, ABombIsRefusedAtTheLimit) {
  write_text(dir / "bomb.zst", bomb(1000));  // 4 kB that unpack to 125 MiB
  EXPECT_NE(message_of([&] { unpack_zstd(dir / "bomb.zst"); }).find("unpacks to more than 64.00 MiB"), std::string::npos);
  EXPECT_EQ(unpack_zstd(dir / "bomb.zst", {.free = 1000 * kZstBlock}).size(), 1000 * kZstBlock);
  EXPECT_NE(message_of([&] { unpack_zstd(dir / "bomb.zst", {.free = 1000 * kZstBlock, .most = 1000 * kZstBlock - 1}); }).find("more than"),
            std::string::npos);
  EXPECT_EQ(unpack_zstd(dir / "bomb.zst", {.free = 0, .ratio = 100000}).size(), 1000 * kZstBlock);
}

}  // namespace
}  // namespace statera
