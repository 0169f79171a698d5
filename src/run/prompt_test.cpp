// From conversations to inputs over a model without weights, a real tokenizer, template and picture.
#include "run/prompt.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "run/fake_model.h"

namespace statera {
namespace {

constexpr int64_t kImagePad = 505;
const std::string kData = std::string(STATERA_SOURCE_DIR) + "/src/text/testdata";

class FakeVision : public VisionStack {
 public:
  int64_t blocks() const override { return 0; }
  at::Tensor enter(const at::Tensor& pixels, const std::vector<Grid>&, Pass&) const override { return pixels; }
  void prepare(const std::vector<Grid>&, Pass&) const override {}
  at::Tensor block(int64_t, const at::Tensor& h, Pass&) const override { return h; }
  VisualFeatures leave(const at::Tensor& h, const Pass&) const override { return {h, {}}; }
  Topology topology(int64_t) const override { return {}; }
};

// Expands every image marker to a token per merged block, as Qwen-VL does.
class FakeVlm : public FakeModel {
 public:
  FakeVision tower;
  const VisionStack* vision() const override { return &tower; }
  std::string expand_placeholders(const std::string& prompt, const MediaSizes& media) const override {
    const std::string marker = "<|image_pad|>";
    std::string out = prompt;
    size_t at = 0;
    for (const Grid& g : media.images) {
      at = out.find(marker, at);
      std::string many;
      for (int64_t i = 0; i < g[0] * g[1] * g[2] / 4; ++i) many += marker;
      out.replace(at, marker.size(), many);
      at += many.size();
    }
    return out;
  }
  at::Tensor token_kinds(const at::Tensor& ids) const override { return (ids == kImagePad).to(at::kChar); }
};

// A white 1-bit-simple picture: 24-bit BMP of 40 x 40 as a data URI.
std::string white_picture() {
  const int side = 40, row = side * 3;
  std::string bmp = "BM";
  auto put = [&](uint32_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) bmp += static_cast<char>(v >> (8 * i));
  };
  put(54 + row * side, 4), put(0, 4), put(54, 4), put(40, 4), put(side, 4), put(side, 4), put(1, 2), put(24, 2), put(0, 4);
  put(row * side, 4), put(2835, 4), put(2835, 4), put(0, 4), put(0, 4);
  bmp += std::string(static_cast<size_t>(row * side), '\xff');
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out = "data:image/bmp;base64,";
  for (size_t i = 0; i + 2 < bmp.size() + 2; i += 3) {
    uint32_t v = 0;
    for (size_t k = 0; k < 3; ++k) v = v << 8 | (i + k < bmp.size() ? static_cast<unsigned char>(bmp[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += i + k > bmp.size() ? '=' : digits[v >> (18 - 6 * k) & 63];
  }
  return out;
}

class PromptOf : public testing::Test {
 protected:
  PromptOf() {
    parts.model = &model;
    parts.tokenizer = Tokenizer::from_directory(kData + "/byte_level");
    parts.chat_template = ChatTemplate::from_source(read_file(kData + "/chatml_vision.jinja"), "chatml_vision.jinja");
    parts.processor = QwenProcessor::from_json(QwenGeneration::qwen2,
                                               Json::parse(R"({"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
        "min_pixels": 784, "max_pixels": 100352, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]})",
                                                           "test"),
                                               nullptr);
  }
  ErrorKind kind_of(const Conversation& c, const PromptOptions& options = {}) {
    try {
      make_prompt(c, parts, options);
    } catch (const Error& e) {
      return e.kind();
    }
    ADD_FAILURE() << "no error";
    return ErrorKind::io;
  }
  FakeVlm model;
  PromptParts parts;
};

TEST_F(PromptOf, TextIsRenderedTokenisedAndNumbered) {
  Prompt p = make_prompt(Conversation::user("Hi there"), parts);
  EXPECT_NE(p.text.find("<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"), std::string::npos);
  std::vector<int64_t> ids(p.inputs.input_ids.data_ptr<int64_t>(), p.inputs.input_ids.data_ptr<int64_t>() + p.inputs.input_ids.numel());
  EXPECT_EQ(ids, parts.tokenizer->encode(p.text, false));
  EXPECT_EQ(p.inputs.position_ids.size(0), p.inputs.input_ids.size(0));
  EXPECT_FALSE(p.inputs.pixel_values.defined());
}

TEST_F(PromptOf, APictureBecomesOnePlaceholderPerMergedBlock) {
  Prompt p = make_prompt(Conversation::user("What is this?", {white_picture()}), parts);
  ASSERT_EQ(p.inputs.image_grid_thw.size(), 1u);  // 40 -> 28 or 56: a multiple of 28
  auto [t, h, w] = p.inputs.image_grid_thw[0];
  EXPECT_EQ(p.inputs.pixel_values.size(0), t * h * w);
  EXPECT_EQ((p.inputs.input_ids == kImagePad).sum().item<int64_t>(), t * h * w / 4);
  EXPECT_NEAR(p.inputs.pixel_values.min().item<float>(), 1, 1e-6);
}

TEST_F(PromptOf, APlaceholderWrittenByTheUserIsAMismatch) {
  EXPECT_EQ(kind_of(Conversation::user("what is <|image_pad|>?")), ErrorKind::mismatch);
}

TEST_F(PromptOf, WhatTheCheckpointLacksIsNamed) {
  auto picture = Conversation::user("x", {white_picture()});
  FakeModel text;
  parts.processor.reset();
  EXPECT_EQ(kind_of(picture), ErrorKind::not_found);
  parts.model = &text;
  EXPECT_EQ(kind_of(picture), ErrorKind::usage);
  parts.chat_template.reset();
  EXPECT_EQ(kind_of(Conversation::user("x")), ErrorKind::not_found);
  PromptOptions raw;
  raw.raw = true;
  EXPECT_EQ(make_prompt(Conversation::user("x"), parts, raw).text, "x");
  parts.tokenizer.reset();
  EXPECT_EQ(kind_of(Conversation::user("x"), raw), ErrorKind::not_found);
}

}  // namespace
}  // namespace statera
