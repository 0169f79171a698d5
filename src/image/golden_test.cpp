// Every case of tests/golden/media (tools/golden/media.py): decoding as Pillow's, and load_media as transformers' processors and
// qwen-vl-utils give it. Grids, indices and times exactly; pixels before normalisation within each case's steps of 255.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "image/decode.h"
#include "image/media.h"

namespace statera {
namespace {

const std::string kFolder = std::string(STATERA_SOURCE_DIR) + "/tests/golden/media";

const Json& document() {
  static const Json json = Json::read_file(kFolder + "/cases.json");
  return json;
}
const std::string& binary(const std::string& name) {
  static const std::string decode = read_file(kFolder + "/decode.bin"), samples = read_file(kFolder + "/samples.bin");
  return name == "decode" ? decode : samples;
}

QwenProcessor processor(const std::string& name) {
  const Json& p = document().at("processors").at(name);
  return QwenProcessor::from_json(*qwen_generation(p.at("generation").as_string()), p.at("image"), p.get("video"));
}

// Largest difference of a decoded picture from the expected one; -1 when the sizes differ.
int difference(const at::Tensor& got, const Json& expected) {
  const int64_t h = expected.at("height").as_int(), w = expected.at("width").as_int();
  if (got.size(0) != h || got.size(1) != w) return -1;
  const auto* want = reinterpret_cast<const uint8_t*>(binary("decode").data()) + expected.at("at").as_int();
  const uint8_t* have = got.const_data_ptr<uint8_t>();
  int worst = 0;
  for (int64_t i = 0; i < h * w * 3; ++i) worst = std::max(worst, std::abs(int{have[i]} - int{want[i]}));
  return worst;
}

TEST(Golden, DecodingGivesPillowsPixelsInBothStyles) {
  size_t count = 0;
  for (const Json& one : document().at("decode").as_array()) {
    const std::string& file = one.at("file").as_string();
    const std::string bytes = read_file(kFolder + "/" + file);
    const int allowed = one.at("lossy").as_bool() ? 2 : 0;
    for (const char* style : {"hf", "util"}) {
      const bool util = std::string(style) == "util";
      DecodeOptions options{util ? AlphaMode::white_rgba : AlphaMode::drop, !util};
      const int d = difference(decode_image(bytes, options, file), one.at(style));
      EXPECT_TRUE(d >= 0 && d <= allowed) << file << " " << style << ": " << d;
      ++count;
    }
  }
  EXPECT_GE(count, 80u);
}

struct Comparison {
  double worst = 0;
  bool shape = true;
};

// The samples of a case against our rows, both before normalisation in steps of 255.
Comparison compare(const at::Tensor& rows, const Json& expected, const Normalization& norm) {
  Comparison out;
  const int64_t columns = expected.at("columns").as_int(), at = expected.at("at").as_int(), stride = expected.at("stride").as_int();
  if (!rows.defined() || rows.size(0) != expected.at("rows").as_int() || rows.size(1) != columns) {
    out.shape = false;
    return out;
  }
  const float* values = rows.const_data_ptr<float>();
  for (int64_t i = 0; i < expected.at("count").as_int(); ++i) {
    const int64_t flat = i * stride;
    const size_t channel = static_cast<size_t>(flat % columns / (columns / 3));
    const double x = values[flat];
    const double level = 255 * (norm.do_normalize ? x * norm.std[channel] + norm.mean[channel] : x);
    const double want = static_cast<uint8_t>(binary("samples")[static_cast<size_t>(at + i)]);
    out.worst = std::max(out.worst, std::abs(level - want));
  }
  return out;
}

Json grids(const std::vector<std::array<int64_t, 3>>& list) {
  Json out = Json::array();
  for (const auto& g : list) out.push(Json(std::vector<int64_t>(g.begin(), g.end())));
  return out;
}

MediaOptions options_of(const Json& one) {
  MediaOptions out;
  out.style = one.at("style").as_string();
  out.fetch.base_dir = kFolder;
  const Json& o = one.at("options");
  if (o.has("max_pixels")) out.max_pixels = o.at("max_pixels").as_double();
  if (o.has("min_pixels")) out.min_pixels = o.at("min_pixels").as_double();
  if (o.has("num_frames")) out.num_frames = o.at("num_frames").as_int();
  return out;
}

std::vector<const Json*> media_of(const Json& one) {
  std::vector<const Json*> out;
  for (const Json& item : one.at("items").as_array()) {
    if (is_media_item(item)) out.push_back(&item);
  }
  return out;
}

void check_clips(const MediaInputs& got, const Json& one) {
  ASSERT_EQ(got.video_metadata.size(), one.at("indices").as_array().size());
  for (size_t v = 0; v < got.video_metadata.size(); ++v) {
    EXPECT_EQ(Json(got.video_metadata[v].frames_indices), one.at("indices").as_array()[v]) << Json(got.video_metadata[v].frames_indices).dump();
    EXPECT_NEAR(got.video_metadata[v].fps, one.at("fps").as_array()[v].as_double(), 1e-9);
    EXPECT_NEAR(got.second_per_grid_ts[v], one.at("second_per_grid_ts").as_array()[v].as_double(), 1e-9);
    EXPECT_EQ(static_cast<int64_t>(got.timestamps[v].size()), got.video_grid_thw[v][0]);
  }
}

void check_case(const Json& one) {
  const QwenProcessor p = processor(one.at("processor").as_string());
  const MediaInputs got = load_media(media_of(one), p, options_of(one));
  const double allowed = one.at("tolerance").as_double() + 0.01;
  if (const Json* want = one.get("pixel_values")) {
    EXPECT_EQ(grids(got.image_grid_thw), one.at("image_grid_thw")) << grids(got.image_grid_thw).dump();
    const Comparison c = compare(got.pixel_values, *want, p.image.norm);
    EXPECT_TRUE(c.shape);
    EXPECT_LE(c.worst, allowed);
  } else {
    EXPECT_FALSE(got.pixel_values.defined());
  }
  if (const Json* want = one.get("pixel_values_videos")) {
    EXPECT_EQ(grids(got.video_grid_thw), one.at("video_grid_thw")) << grids(got.video_grid_thw).dump();
    const Comparison c = compare(got.pixel_values_videos, *want, p.video.norm);
    EXPECT_TRUE(c.shape);
    EXPECT_LE(c.worst, allowed);
    check_clips(got, one);
  } else {
    EXPECT_FALSE(got.pixel_values_videos.defined());
  }
}

TEST(Golden, ProcessorsGiveTheReferencesGridsTimesAndPixels) {
  const auto& cases = document().at("cases").as_array();
  EXPECT_GE(cases.size(), 80u);
  for (const Json& one : cases) {
    SCOPED_TRACE(one.at("name").as_string());
    try {
      check_case(one);
    } catch (const Error& e) {
      ADD_FAILURE() << e.message();
    }
  }
}

}  // namespace
}  // namespace statera
