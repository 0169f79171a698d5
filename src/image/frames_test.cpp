// The published figures of frame counting, trimming, index selection and budgets.
#include "image/frames.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "image/smart_resize.h"

namespace statera {
namespace {

using Indices = std::vector<int64_t>;

FrameRequest with_fps(double fps) { return {.fps = fps}; }
FrameRequest with_n(double n) { return {.nframes = n}; }
FrameRequest trimmed(std::optional<double> a, std::optional<double> b) { return {.video_start = a, .video_end = b}; }

TEST(SmartNframes, DefaultRateGivesThePublishedCounts) {
  struct {
    int64_t n;
    double fps;
    int64_t out;
  } rows[] = {{2, 30, 2}, {3, 30, 2}, {5, 30, 4}, {60, 30, 4}, {100, 29.97, 6}, {300, 30, 20}, {900, 30, 60}, {10000, 25, 768}, {7, 2, 6}};
  for (const auto& r : rows) EXPECT_EQ(smart_nframes({}, r.n, r.fps), r.out) << r.n << "@" << r.fps;
  EXPECT_THROW(smart_nframes({}, 1, 30), Error);
}

TEST(SmartNframes, RequestsGiveThePublishedCounts) {
  EXPECT_EQ(smart_nframes(with_fps(1), 300, 30), 10);
  EXPECT_EQ(smart_nframes(with_fps(4), 300, 30), 40);
  EXPECT_EQ(smart_nframes(with_fps(0.1), 300, 30), 4);
  EXPECT_EQ(smart_nframes(with_n(7), 300, 30), 8);
  EXPECT_EQ(smart_nframes(with_n(5), 300, 30), 4);
  EXPECT_EQ(smart_nframes(with_n(3), 300, 30), 4);
  EXPECT_THROW(smart_nframes(with_n(1), 300, 30), Error);
  EXPECT_THROW(smart_nframes(with_n(400), 300, 30), Error);
  EXPECT_EQ(smart_nframes({.min_frames = 5, .max_frames = 9}, 300, 30), 8);
  EXPECT_EQ(smart_nframes({.max_frames = 2}, 300, 30), 2);
  EXPECT_EQ(smart_nframes({.min_frames = 20, .max_frames = 10}, 300, 30), 10);
  EXPECT_THROW(smart_nframes({.max_frames = 1}, 300, 30), Error);
  EXPECT_EQ(smart_nframes({.max_frames = 2048}, 150000, 25), 2048);
  EXPECT_EQ(smart_nframes(with_fps(60), 301, 30), 300);
  EXPECT_THROW(smart_nframes({.fps = 1, .nframes = 4}, 300, 30), Error);
}

TEST(TrimRange, GivesThePublishedRanges) {
  EXPECT_EQ(trim_range(trimmed(1, {}), 300, 30), (FrameRange{30, 299, 270}));
  EXPECT_EQ(trim_range(trimmed({}, 5), 300, 30), (FrameRange{0, 150, 151}));
  EXPECT_EQ(trim_range(trimmed(2.5, 7.25), 300, 30), (FrameRange{75, 217, 143}));
  EXPECT_EQ(trim_range(trimmed(-3, 100), 300, 30), (FrameRange{0, 299, 300}));
  EXPECT_EQ(trim_range({}, 300, 30), (FrameRange{0, 299, 300}));
  EXPECT_EQ(trim_range(trimmed(0.01, 0.5), 300, 29.97), (FrameRange{1, 14, 14}));
  EXPECT_THROW(trim_range(trimmed(9.99, 10), 300, 30), Error);
  EXPECT_THROW(trim_range({}, 0, 30), Error);
  EXPECT_THROW(trim_range({}, 10, 0), Error);
}

TEST(Indices, AreThePublishedOnes) {
  EXPECT_EQ(linspace_indices_f32(0, 299, 20), (Indices{0, 16, 31, 47, 63, 79, 94, 110, 126, 142, 157, 173, 189, 205, 220, 236, 252, 268, 283, 299}));
  EXPECT_EQ(linspace_indices_f32(0, 99, 8), (Indices{0, 14, 28, 42, 57, 71, 85, 99}));
  EXPECT_EQ(linspace_indices_f32(0, 49, 4), (Indices{0, 16, 33, 49}));
  const FrameRange r = trim_range(trimmed(2.5, 7.25), 300, 30);
  const int64_t n = smart_nframes(with_fps(1), r.count, 30);
  EXPECT_EQ(linspace_indices_f32(r.start, r.end, n), (Indices{75, 122, 170, 217}));
  EXPECT_DOUBLE_EQ(static_cast<double>(n) / static_cast<double>(r.count) * 30, 0.8391608391608392);
}

TEST(Samplers, OfTransformersAreThePublishedOnes) {
  EXPECT_EQ(sample_qwen3({.fps = 2}, 100, 25), (Indices{0, 14, 28, 42, 57, 71, 85, 99}));
  EXPECT_EQ(sample_qwen3({.fps = 4}, 100, 25), (Indices{0, 7, 13, 20, 26, 33, 40, 46, 53, 59, 66, 73, 79, 86, 92, 99}));
  EXPECT_EQ(sample_qwen3({.num_frames = 10}, 100, 25), (Indices{0, 11, 22, 33, 44, 55, 66, 77, 88, 99}));
  EXPECT_EQ(sample_qwen2({.num_frames = 8}, 100, 25), (Indices{0, 12, 25, 37, 50, 62, 75, 87}));
  EXPECT_EQ(sample_qwen2({.fps = 2}, 100, 25), (Indices{0, 12, 25, 37, 50, 62, 75, 87}));
  EXPECT_EQ(sample_qwen2({}, 5, 25), (Indices{0, 1, 2, 3, 4}));
  EXPECT_EQ(sample_qwen3({.fps = 2}, 1, 25), (Indices{0}));
  EXPECT_EQ(sample_qwen2({.fps = 2}, 1, 25), (Indices{0}));
  EXPECT_THROW(sample_qwen2({.num_frames = 12}, 10, 25), Error);
  EXPECT_THROW(sample_qwen3({.fps = 2, .num_frames = 4}, 10, 25), Error);
}

ImageSize budgeted(int64_t n, int64_t f, int64_t h, int64_t w, std::optional<double> min = {}, std::optional<double> max = {},
                   std::optional<double> total = {}) {
  const FrameBudget b = frame_budget(n, f, min, max, total, 128000);
  return smart_resize(ResizeRule::util, h, w, f, b.min_pixels, b.max_pixels);
}

TEST(FrameBudget, GivesThePublishedSizes) {
  EXPECT_EQ(budgeted(20, 28, 360, 640), (ImageSize{364, 644}));
  EXPECT_EQ(budgeted(20, 32, 360, 640), (ImageSize{352, 640}));
  EXPECT_EQ(budgeted(8, 28, 720, 1280), (ImageSize{560, 1008}));
  EXPECT_EQ(budgeted(8, 32, 720, 1280), (ImageSize{640, 1152}));
  EXPECT_EQ(budgeted(4, 28, 240, 320), (ImageSize{280, 392}));
  EXPECT_EQ(budgeted(4, 32, 240, 320), (ImageSize{320, 448}));
  EXPECT_EQ(budgeted(10, 28, 360, 640, {}, 151200), (ImageSize{280, 504}));
  EXPECT_EQ(budgeted(10, 32, 360, 640, {}, 151200), (ImageSize{288, 512}));
  EXPECT_EQ(budgeted(8, 32, 720, 1280, 16 * 1024, {}, 64 * 1024), (ImageSize{96, 160}));
}

TEST(FrameBudget, LongClipsShareTheTotal) {
  struct {
    int64_t n;
    ImageSize at28, at32;
  } rows[] = {{300, {560, 1008}, {640, 1152}}, {512, {420, 784}, {480, 896}}, {768, {336, 644}, {384, 736}}, {2048, {224, 420}, {256, 480}}};
  for (const auto& r : rows) {
    EXPECT_EQ(budgeted(r.n, 28, 720, 1280), r.at28) << r.n;
    EXPECT_EQ(budgeted(r.n, 32, 720, 1280), r.at32) << r.n;
  }
  for (int64_t f : {28, 32}) {
    const double a = static_cast<double>(f * f);
    EXPECT_EQ(budgeted(60, f, 720, 1280, 4 * a, 256 * a, 20480 * a), f == 28 ? (ImageSize{336, 588}) : (ImageSize{384, 672}));
    EXPECT_EQ(budgeted(768, f, 720, 1280, 4 * a, 256 * a, 20480 * a), f == 28 ? (ImageSize{140, 252}) : (ImageSize{160, 288}));
  }
}

TEST(FrameBudget, AMaximumBelowTheDefaultMinimumLowersIt) {
  EXPECT_EQ(budgeted(10, 32, 240, 320, {}, 100 * 1024), (ImageSize{288, 384}));  // one step of growth from the lowered minimum
  EXPECT_EQ(budgeted(10, 32, 240, 320, 1024, 100 * 1024), (ImageSize{256, 320}));
  EXPECT_THROW(budgeted(10, 32, 240, 320, 200 * 1024, 100 * 1024), Error);
}

TEST(FrameBudget, ModelSeqLenComesFromTheEnvironment) {
  unsetenv("MODEL_SEQ_LEN");
  EXPECT_EQ(model_seq_len_from_environment(), 128000);
  setenv("MODEL_SEQ_LEN", "6.4e4", 1);
  EXPECT_EQ(model_seq_len_from_environment(), 64000);
  setenv("MODEL_SEQ_LEN", "many", 1);
  EXPECT_THROW(model_seq_len_from_environment(), Error);
  unsetenv("MODEL_SEQ_LEN");
}

TEST(Timestamps, AreTheMeanOfAPairAndTheLastIsRepeated) {
  const auto t = patch_timestamps({0, 16, 33, 49}, 10, 2);
  ASSERT_EQ(t.size(), 2u);
  EXPECT_DOUBLE_EQ(t[0], 0.8);
  EXPECT_DOUBLE_EQ(t[1], 4.1);
  const auto odd = patch_timestamps({10, 16, 22}, 10, 2);
  ASSERT_EQ(odd.size(), 2u);
  EXPECT_DOUBLE_EQ(odd[1], 2.2);
}

}  // namespace
}  // namespace statera
