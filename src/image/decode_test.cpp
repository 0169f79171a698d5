// Bad pictures are one clear error each, before memory is spent; the published colour conversions.
#include "image/decode.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "base/file.h"
#include "image/sniff.h"

namespace statera {
namespace {

std::string fixture(const std::string& name) { return read_file(std::string(STATERA_SOURCE_DIR) + "/tests/golden/media/" + name); }

// The message of the Error that decoding gives; fails the test when there is none.
std::string refusal(const std::string& bytes, const DecodeOptions& options = {}) {
  try {
    decode_image(bytes, options, "a.png");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_file) << e.message();
    EXPECT_TRUE(e.message().starts_with("a.png: ")) << e.message();
    EXPECT_EQ(e.message().find('\n'), std::string::npos);
    return e.message();
  }
  ADD_FAILURE() << "decoded";
  return "";
}

void put32(std::string& bytes, size_t at, uint32_t v) {
  for (int i = 0; i < 4; ++i) bytes[at + static_cast<size_t>(i)] = static_cast<char>(v >> (24 - 8 * i));
}

uint32_t crc32_of(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int k = 0; k < 8; ++k) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

TEST(Decode, WhatIsNoPictureSaysSo) {
  EXPECT_NE(refusal("").find("empty"), std::string::npos);
  EXPECT_NE(refusal("hello, this is text").find("not a picture"), std::string::npos);
  EXPECT_NE(refusal("<svg xmlns=\"http://www.w3.org/2000/svg\"/>").find("not a picture"), std::string::npos);
  EXPECT_NE(refusal("%PDF-1.4").find("not a picture"), std::string::npos);
  EXPECT_NE(refusal(std::string(100, '\0')).find("not a picture"), std::string::npos);
}

TEST(Decode, EveryTruncationIsAnError) {
  for (const char* name : {"rgb.png", "rgb.jpg", "progressive.jpg", "grey16.png", "lossless.webp", "lossy.webp", "opaque.gif", "rgb.tiff", "rgb.bmp"}) {
    const std::string whole = fixture(name);
    for (double part : {0.1, 0.3, 0.5, 0.8}) {
      SCOPED_TRACE(std::string(name) + " " + std::to_string(part));
      refusal(whole.substr(0, static_cast<size_t>(static_cast<double>(whole.size()) * part)));
    }
  }
}

TEST(Decode, ADamagedBodyIsAnErrorOrAPictureButNeverACrash) {
  for (const char* name : {"rgb.png", "rgb.jpg", "lossless.webp", "opaque.gif", "rgb.tiff", "cmyk.jpg"}) {
    std::string bytes = fixture(name);
    for (size_t i = 12; i < bytes.size(); i += 29) {
      std::string bad = bytes;
      bad[i] = static_cast<char>(bad[i] ^ 0x5A);
      try {
        EXPECT_EQ(decode_image(bad, {.max_pixels = 1 << 20}, name).size(2), 3);
      } catch (const Error& e) {
        EXPECT_TRUE(e.message().starts_with(name));
      }
    }
  }
}

TEST(Decode, AHeaderThatClaimsTooManyPixelsIsRefusedUnread) {
  std::string png = fixture("rgb.png");
  put32(png, 16, 60000);
  put32(png, 20, 60000);
  put32(png, 29, crc32_of(std::string_view(png).substr(12, 17)));
  EXPECT_NE(refusal(png).find("60000x60000 pixels exceed the limit"), std::string::npos) << refusal(png);
  std::string bmp = fixture("rgb.bmp");
  bmp[19] = bmp[23] = '\x7F';
  EXPECT_NE(refusal(bmp, {.max_pixels = 1 << 20}).find("exceed the limit"), std::string::npos);
}

TEST(Decode, TheLimitCountsPixelsOfTheHeader) {
  const std::string png = fixture("rgb.png");
  DecodeOptions options;
  options.max_pixels = 53 * 37;
  EXPECT_EQ(decode_image(png, options, "x").size(0), 37);
  options.max_pixels -= 1;
  EXPECT_NE(refusal(png, options).find("53x37 pixels exceed the limit of 1960"), std::string::npos);
}

TEST(Decode, PublishedColourConversions) {
  const std::string rgba = fixture("rgba.png"), la = fixture("grey_alpha.png");
  auto first = [](const at::Tensor& t) {
    const uint8_t* p = t.const_data_ptr<uint8_t>();
    return std::vector<int>{p[0], p[1], p[2]};
  };
  EXPECT_EQ(first(decode_image(rgba, {AlphaMode::white_rgba, false}, "x")), (std::vector<int>{255, 127, 127}));
  EXPECT_EQ(first(decode_image(rgba, {AlphaMode::drop, false}, "x")), (std::vector<int>{255, 0, 0}));
  EXPECT_EQ(first(decode_image(la, {AlphaMode::white_rgba, false}, "x")), (std::vector<int>{10, 10, 10}));
}

TEST(Decode, ExifTurnsOnlyWhenAsked) {
  const std::string jpeg = fixture("turned300x100.jpg");
  EXPECT_EQ(decode_image(jpeg, {AlphaMode::drop, true}, "x").size(0), 300);
  EXPECT_EQ(decode_image(jpeg, {AlphaMode::drop, false}, "x").size(0), 100);
}

TEST(Sniff, KnowsTheContainersAndWhatVipsHides) {
  EXPECT_EQ(sniff_format(fixture("rgb.tiff")), ImageFormat::tiff);
  EXPECT_EQ(sniff_format(fixture("lossy.webp")), ImageFormat::webp);
  EXPECT_EQ(png_colour_type(fixture("palette.png")), 3);
  EXPECT_EQ(png_colour_type(fixture("rgb.jpg")), -1);
  EXPECT_TRUE(jpeg_has_adobe(fixture("cmyk.jpg")));
  EXPECT_FALSE(jpeg_has_adobe(fixture("rgb.jpg")));
  EXPECT_FALSE(jpeg_has_adobe("\xFF\xD8\xFF"));
  EXPECT_NE(gif_opaque(fixture("key.gif")), fixture("key.gif"));
  EXPECT_EQ(gif_opaque("GIF89a"), "GIF89a");
}

}  // namespace
}  // namespace statera
