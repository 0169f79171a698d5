// Exact frames by index, whatever the order of asking; damaged clips.
#include "image/video.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

const std::string kFolder = std::string(STATERA_SOURCE_DIR) + "/tests/golden/media/";

// Mean brightness of a frame; the fixtures brighten from frame to frame.
double brightness(const at::Tensor& frame) {
  const uint8_t* p = frame.const_data_ptr<uint8_t>();
  double sum = 0;
  for (int64_t i = 0; i < frame.numel(); ++i) sum += p[i];
  return sum / static_cast<double>(frame.numel());
}

std::vector<double> read_brightness(VideoFile& video, const std::vector<int64_t>& indices) {
  std::vector<double> out(indices.size(), -1);
  video.read(indices, [&](int64_t i, const at::Tensor& frame) { out[static_cast<size_t>(i)] = brightness(frame); });
  return out;
}

TEST(Video, CountsFramesAndKnowsTheRate) {
  struct {
    const char* name;
    int64_t frames;
    double fps;
    int64_t height, width;
  } rows[] = {{"c50at10.mp4", 50, 10, 240, 320}, {"c100at25.mp4", 100, 25, 120, 160}, {"c7at2.mp4", 7, 2, 64, 96}, {"c1.mp4", 1, 25, 64, 64},
              {"c12.webm", 12, 5, 48, 64}, {"lossless.mkv", 9, 5, 24, 32}, {"animated.gif", 3, 10, 20, 30}};
  for (const auto& r : rows) {
    const VideoInfo info = VideoFile::open(kFolder + r.name).info();
    EXPECT_EQ(info.frames, r.frames) << r.name;
    EXPECT_NEAR(info.fps, r.fps, 1e-6) << r.name;
    EXPECT_EQ(info.height, r.height) << r.name;
    EXPECT_EQ(info.width, r.width) << r.name;
  }
}

TEST(Video, FramesComeByNumberInAnyOrderAlsoTwice) {
  VideoFile video = VideoFile::open(kFolder + "c50at10.mp4");
  std::vector<int64_t> all(50);
  for (int64_t i = 0; i < 50; ++i) all[static_cast<size_t>(i)] = i;
  const std::vector<double> in_order = read_brightness(video, all);
  for (size_t i = 1; i < 50; ++i) EXPECT_GT(in_order[i], in_order[i - 1]) << i;
  const std::vector<double> mixed = read_brightness(video, {49, 3, 3, 0, 27});
  EXPECT_EQ(mixed, (std::vector<double>{in_order[49], in_order[3], in_order[3], in_order[0], in_order[27]}));
}

TEST(Video, BytesAndAFileGiveTheSame) {
  VideoFile a = VideoFile::open(kFolder + "c7at2.mp4"), b = VideoFile::from_bytes(read_file(kFolder + "c7at2.mp4"), "memory");
  EXPECT_EQ(read_brightness(a, {0, 6}), read_brightness(b, {0, 6}));
}

TEST(Video, TruncationAndNonsenseAreErrors) {
  for (const char* name : {"c50at10.mp4", "c12.webm", "lossless.mkv"}) {
    const std::string whole = read_file(kFolder + name);
    for (double part : {0.0, 0.02, 0.5}) {
      SCOPED_TRACE(std::string(name) + " " + std::to_string(part));
      try {
        VideoFile video = VideoFile::from_bytes(whole.substr(0, static_cast<size_t>(static_cast<double>(whole.size()) * part)), "cut");
        // Containers without a count may open; what they then have is what they say.
        EXPECT_LT(video.info().frames, VideoFile::open(kFolder + name).info().frames);
      } catch (const Error& e) {
        EXPECT_TRUE(e.message().starts_with("cut: ")) << e.message();
        EXPECT_EQ(e.kind(), ErrorKind::bad_file) << e.message();
      }
    }
  }
  EXPECT_THROW(VideoFile::from_bytes("#EXTM3U\nfile:///etc/hostname\n", "list"), Error);
  EXPECT_THROW(VideoFile::from_bytes("ffconcat version 1.0\nfile /etc/hostname\n", "list"), Error);
  EXPECT_THROW(VideoFile::open(kFolder + "c50at10.mp4", 100), Error);
}

}  // namespace
}  // namespace statera
