// The published figures of smart_resize: every variant, its guards and its rounding.
#include "image/smart_resize.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace statera {
namespace {

using Opt = std::optional<double>;
ImageSize util(int64_t h, int64_t w, int64_t f, Opt min = {}, Opt max = {}) {
  return smart_resize(ResizeRule::util, h, w, f, min, max);
}
ImageSize hf(int64_t h, int64_t w, int64_t f, double min, double max) { return smart_resize(ResizeRule::hf, h, w, f, min, max); }

struct Row {
  int64_t h, w;
  ImageSize at28, at32;
};

TEST(SmartResize, UtilDefaultBudgetsGiveThePublishedSizes) {
  const Row rows[] = {
      {1, 1, {56, 56}, {64, 64}},           {13, 13, {56, 56}, {64, 64}},         {28, 28, {56, 56}, {64, 64}},
      {42, 42, {56, 56}, {64, 64}},         {27, 28, {56, 84}, {64, 96}},         {100, 100, {112, 112}, {96, 96}},
      {224, 224, {224, 224}, {224, 224}},   {480, 640, {476, 644}, {480, 640}},   {428, 640, {420, 644}, {416, 640}},
      {1080, 1920, {1092, 1932}, {1088, 1920}}, {2160, 3840, {2156, 3836}, {2176, 3840}},
      {4320, 7680, {2688, 4760}, {3072, 5440}}, {8000, 8000, {3584, 3584}, {4096, 4096}},
      {5000, 5000, {3556, 3556}, {4096, 4096}}, {100, 20000, {112, 19992}, {96, 20000}},
      {3, 600, {28, 588}, {32, 608}},       {10, 2000, {28, 1988}, {32, 1984}},
  };
  for (const Row& r : rows) {
    EXPECT_EQ(util(r.h, r.w, 28), r.at28) << r.h << "x" << r.w;
    EXPECT_EQ(util(r.h, r.w, 32), r.at32) << r.h << "x" << r.w;
  }
}

TEST(SmartResize, ExplicitBudgetsGiveThePublishedSizes) {
  EXPECT_EQ(util(1080, 1920, 28, 200704, 1003520), (ImageSize{728, 1316}));
  EXPECT_EQ(util(1080, 1920, 32, 262144, 1310720), (ImageSize{832, 1504}));
  EXPECT_EQ(util(1080, 1920, 28, 50176, 50176), (ImageSize{168, 280}));
  EXPECT_EQ(util(480, 640, 32, 50176, 50176), (ImageSize{192, 256}));
  EXPECT_EQ(util(100, 100, 32, 786432, 13107200), (ImageSize{896, 896}));
}

TEST(SmartResize, ThinImagesShrinkToZeroUnderUtilAndToOneFactorUnderHf) {
  EXPECT_EQ(util(10, 1999, 32, 4096, 8192), (ImageSize{0, 1248}));
  EXPECT_EQ(hf(10, 1999, 32, 4096, 8192), (ImageSize{32, 928}));
  EXPECT_EQ(util(10, 2000, 28, 3136, 3136), (ImageSize{0, 784}));
  EXPECT_EQ(hf(10, 2000, 28, 3136, 3136), (ImageSize{28, 812}));
}

TEST(SmartResize, ASideThatRoundsToZeroGrowsUnderHf) {
  EXPECT_EQ(hf(10, 2000, 28, 3136, 12845056), (ImageSize{28, 812}));
  EXPECT_EQ(hf(10, 2000, 32, 65536, 16777216), (ImageSize{32, 3648}));
}

TEST(SmartResize, HfImageGridsOfBothGenerations) {
  struct {
    int64_t h, w;
    ImageSize q3, q25;
  } rows[] = {{480, 640, {30, 40}, {34, 46}},   {1080, 1920, {68, 120}, {78, 138}}, {100, 100, {16, 16}, {8, 8}},
              {64, 64, {16, 16}, {4, 4}},       {5000, 5000, {256, 256}, {254, 254}}, {28, 5600, {2, 350}, {2, 400}}};
  for (const auto& r : rows) {
    ImageSize a = hf(r.h, r.w, 32, 65536, 16777216), b = hf(r.h, r.w, 28, 3136, 12845056);
    EXPECT_EQ((ImageSize{a.height / 16, a.width / 16}), r.q3) << r.h << "x" << r.w;
    EXPECT_EQ((ImageSize{b.height / 14, b.width / 14}), r.q25) << r.h << "x" << r.w;
  }
}

TEST(SmartResize, RatioAbove200IsAnErrorAndExactly200IsNot) {
  EXPECT_EQ(util(100, 20000, 28), (ImageSize{112, 19992}));
  try {
    util(100, 20001, 28);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
    EXPECT_NE(e.message().find("200.01"), std::string::npos) << e.message();
  }
  EXPECT_THROW(util(0, 10, 28), Error);
}

TEST(SmartResize, MaxBelowMinIsAnErrorUnderUtil) { EXPECT_THROW(util(100, 100, 28, 1000, 500), Error); }

TEST(SmartResize, HalfwayRoundsToEven) {
  const int64_t n[] = {42, 48, 70, 80, 98, 112, 14}, at28[] = {56, 56, 56, 84, 112, 112, 0}, at32[] = {32, 64, 64, 64, 96, 128, 0};
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(round_by_factor(n[i], 28), at28[i]) << n[i];
    EXPECT_EQ(round_by_factor(n[i], 32), at32[i]) << n[i];
  }
}

TEST(SmartResizeClip, BudgetCoversTheWholeClip) {
  auto clip = [](int64_t t, int64_t h, int64_t w) { return smart_resize_clip(t, h, w, 2, 32, 4096, 25165824); };
  EXPECT_EQ(clip(8, 720, 1280), (ImageSize{704, 1280}));
  EXPECT_EQ(clip(60, 720, 1280), (ImageSize{480, 832}));
  EXPECT_EQ(clip(128, 720, 1280), (ImageSize{320, 576}));
  EXPECT_EQ(clip(768, 720, 1280), (ImageSize{128, 224}));
  EXPECT_EQ(clip(5, 480, 640), (ImageSize{480, 640}));
  EXPECT_EQ(clip(3, 20, 20), (ImageSize{32, 32}));
  EXPECT_THROW(clip(1, 64, 64), Error);
}

}  // namespace
}  // namespace statera
