// Order and values of patch rows, and what resizing guarantees.
#include "image/patchify.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "image/resize.h"

namespace statera {
namespace {

// A frame whose red and green hold the patch coordinates (times p), whose blue holds the frame number.
at::Tensor coordinates(int64_t T, int64_t H, int64_t W) {
  at::Tensor out = at::empty({T, H, W, 3}, at::kByte);
  uint8_t* v = out.mutable_data_ptr<uint8_t>();
  for (int64_t t = 0; t < T; ++t)
    for (int64_t y = 0; y < H; ++y)
      for (int64_t x = 0; x < W; ++x) {
        *v++ = static_cast<uint8_t>(y);
        *v++ = static_cast<uint8_t>(x);
        *v++ = static_cast<uint8_t>(t);
      }
  return out;
}

Normalization raw() {
  Normalization n;
  n.do_rescale = n.do_normalize = false;
  return n;
}

TEST(Patchify, RowsOf64x64WalkBlocksOfTwoByTwo) {
  Patches out = patchify(coordinates(1, 64, 64), {16, 2, 2}, raw());
  EXPECT_EQ(out.grid_thw, (std::array<int64_t, 3>{1, 4, 4}));
  ASSERT_EQ(out.values.size(0), 16);
  ASSERT_EQ(out.values.size(1), 1536);
  const int yx[16][2] = {{0, 0}, {0, 16}, {16, 0}, {16, 16}, {0, 32}, {0, 48}, {16, 32}, {16, 48},
                         {32, 0}, {32, 16}, {48, 0}, {48, 16}, {32, 32}, {32, 48}, {48, 32}, {48, 48}};
  const float* v = out.values.const_data_ptr<float>();
  for (int r = 0; r < 16; ++r) {
    EXPECT_EQ(v[r * 1536], yx[r][0]) << r;
    EXPECT_EQ(v[r * 1536 + 512], yx[r][1]) << r;
  }
  EXPECT_EQ(v[1], 0);                // one step in x leaves y alone
  EXPECT_EQ(v[512 + 1], 1);          // and moves x
  EXPECT_EQ(v[16], 1);               // y is the slower one
  EXPECT_EQ(v[256 + 16], 1);         // the second frame of a still is the same frame
}

TEST(Patchify, FourFramesFillTwoTemporalPatches) {
  Patches out = patchify(coordinates(4, 64, 64), {16, 2, 2}, raw());
  EXPECT_EQ(out.grid_thw, (std::array<int64_t, 3>{2, 4, 4}));
  const float* v = out.values.const_data_ptr<float>();
  for (int r = 0; r < 32; ++r) {
    EXPECT_EQ(v[r * 1536 + 1024], r < 16 ? 0 : 2) << r;
    EXPECT_EQ(v[r * 1536 + 1024 + 256], r < 16 ? 1 : 3) << r;
  }
}

TEST(Patchify, AnOddFrameCountRepeatsTheLast) {
  Patches out = patchify(coordinates(3, 28, 28), {14, 2, 2}, raw());
  EXPECT_EQ(out.grid_thw, (std::array<int64_t, 3>{2, 2, 2}));
  const float* v = out.values.const_data_ptr<float>() + 4 * 1176 + 2 * 392;
  EXPECT_EQ(v[0], 2);
  EXPECT_EQ(v[196], 2);
}

TEST(Patchify, NormalisedValuesAreThePublishedOnes) {
  Normalization half;
  half.mean = half.std = {0.5, 0.5, 0.5};
  auto t = half.table(0);
  EXPECT_EQ(t[0], -1.0f);
  EXPECT_NEAR(t[128], 0.00392157f, 1e-7);
  EXPECT_EQ(t[255], 1.0f);
  Normalization clip;
  clip.mean = {0.48145466, 0.4578275, 0.40821073};
  clip.std = {0.26862954, 0.26130258, 0.27577711};
  const float low[] = {-1.7922626f, -1.7520970f, -1.4802198f}, high[] = {1.9303362f, 2.0748835f, 2.1458972f};
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(clip.table(c)[0], low[c], 2e-7);
    EXPECT_NEAR(clip.table(c)[255], high[c], 3e-7);
  }
}

TEST(Patchify, ASizeThatIsNoMultipleOfTheTokenIsAnError) { EXPECT_THROW(patchify(coordinates(1, 64, 48), {16, 2, 2}, raw()), Error); }

TEST(Resize, KeepsAFlatColourAndTheOrderOfChannels) {
  at::Tensor flat = at::empty({2, 37, 53, 3}, at::kByte);
  uint8_t* v = flat.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < flat.numel(); ++i) v[i] = static_cast<uint8_t>(10 + 100 * (i % 3));
  for (bool wide : {false, true}) {
    at::Tensor out = wide ? resize_through_float(flat, {64, 96}) : resize_u8(flat, {64, 96});
    ASSERT_EQ(out.sizes(), (at::IntArrayRef{2, 64, 96, 3}));
    const uint8_t* o = out.const_data_ptr<uint8_t>();
    for (int64_t i = 0; i < out.numel(); ++i) ASSERT_EQ(o[i], 10 + 100 * (i % 3)) << i;
  }
}

TEST(Resize, TheTwoWaysAgreeOnSmoothContentAndTheSameSizeIsTheSamePixels) {
  at::Tensor ramp = coordinates(1, 200, 240);
  EXPECT_TRUE(resize_u8(ramp, {200, 240}).equal(ramp));
  at::Tensor a = resize_u8(ramp, {96, 64}), b = resize_through_float(ramp, {96, 64});
  const uint8_t *x = a.const_data_ptr<uint8_t>(), *y = b.const_data_ptr<uint8_t>();
  for (int64_t i = 0; i < a.numel(); ++i) ASSERT_LE(std::abs(x[i] - y[i]), 1) << i;
  EXPECT_FALSE(resize_u8(ramp, {96, 64}, Resample::bilinear).equal(resize_u8(ramp.narrow(1, 0, 100), {96, 64}, Resample::bilinear)));
}

}  // namespace
}  // namespace statera
