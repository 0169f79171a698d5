// load_media and process_vision_info beyond the goldens: schema, published glue figures, refusals, and where we deliberately differ.
#include "image/media.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/fields.h"
#include "image/video.h"

namespace statera {
namespace {

const std::string kFolder = std::string(STATERA_SOURCE_DIR) + "/tests/golden/media";

QwenProcessor qwen3() {
  return QwenProcessor::from_json(QwenGeneration::qwen3,
                                  Json::parse(R"({"size":{"shortest_edge":65536,"longest_edge":16777216},"patch_size":16,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]})", "q3"),
                                  nullptr);
}
QwenProcessor qwen2_5() { return QwenProcessor::from_json(QwenGeneration::qwen2_5, Json::parse(R"({"min_pixels":3136,"max_pixels":12845056})", "q25"), nullptr); }

VisionOptions vision(int64_t patch) {
  VisionOptions o;
  o.image_patch_size = patch;
  o.fetch.base_dir = kFolder;
  return o;
}

VisionInputs see(const std::string& item, int64_t patch = 16) {
  const Json json = Json::parse(item, "item");
  return process_vision_info({&json}, vision(patch));
}

MediaInputs load(const std::string& item, const QwenProcessor& p, MediaOptions o = {}) {
  const Json json = Json::parse(item, "item");
  o.fetch.base_dir = kFolder;
  return load_media({&json}, p, o);
}

template <class F>
Error refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::usage, "");
}

using Sizes = std::vector<int64_t>;
Sizes sizes(const at::Tensor& t) { return t.sizes().vec(); }

TEST(VisionInfo, FrameListsHaveThePublishedSizesAndMetadata) {
  const std::string list = R"("video":["s480x640.png","s480x640.png","s480x640.png","s480x640.png","s480x640.png"])";
  VisionInputs plain = see("{" + list + "}");
  EXPECT_EQ(sizes(plain.videos.at(0).frames), (Sizes{6, 480, 640, 3}));
  EXPECT_EQ(sizes(see("{" + list + "}", 14).videos.at(0).frames), (Sizes{6, 476, 644, 3}));
  EXPECT_EQ(plain.videos[0].metadata.frames_indices, (Sizes{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(plain.videos[0].metadata.fps, 2.0);
  EXPECT_EQ(plain.videos[0].metadata.total_num_frames, 6.0);
  // raw_fps spaces the indices too, so that times are those of the recording; a rate may be written as text.
  VisionInputs raw = see("{" + list + R"(,"sample_fps":"1","raw_fps":30})");
  EXPECT_EQ(raw.videos.at(0).metadata.fps, 30.0);
  EXPECT_EQ(raw.videos[0].metadata.total_num_frames, 180.0);
  EXPECT_EQ(raw.videos[0].metadata.frames_indices, (Sizes{0, 30, 60, 90, 120, 150}));
}

TEST(VisionInfo, PublishedPictureSizes) {
  EXPECT_EQ(sizes(see(R"({"image":"turned300x100.jpg"})").images.at(0)), (Sizes{96, 288, 3}));
  EXPECT_EQ(sizes(see(R"({"image":"rgb.png","resized_height":280,"resized_width":420})", 14).images.at(0)), (Sizes{280, 420, 3}));
  EXPECT_EQ(sizes(see(R"({"image":"rgb.png","resized_height":280,"resized_width":420})").images.at(0)), (Sizes{288, 416, 3}));
  EXPECT_EQ(sizes(see(R"({"image":"rgb.png","resized_height":10,"resized_width":10})").images.at(0)), (Sizes{64, 64, 3}));
  EXPECT_EQ(sizes(see(R"({"image":"rgb.png","resized_height":10,"resized_width":10})", 14).images.at(0)), (Sizes{56, 56, 3}));
  // The published rule shrinks this height to 0; here a side is at least one token.
  EXPECT_EQ(sizes(see(R"({"image":"s10x2000.png","min_pixels":3136,"max_pixels":3136})", 14).images.at(0)), (Sizes{28, 784, 3}));
}

TEST(VisionInfo, KwargsCarryRatesOnlyWithoutMetadata) {
  VisionInputs clip = see(R"({"video":"c50at10.mp4","fps":1})");
  EXPECT_EQ(clip.video_kwargs(false).dump(), R"({"do_sample_frames": false, "fps": [0.8]})");
  EXPECT_EQ(clip.video_kwargs(true).dump(), R"({"do_sample_frames": false})");
  EXPECT_EQ(process_vision_info({}, vision(16)).video_kwargs(false).dump(), R"({"do_sample_frames": false, "fps": []})");
  EXPECT_EQ(clip.videos[0].metadata.frames_indices, (Sizes{0, 16, 33, 49}));
  EXPECT_EQ(sizes(clip.videos[0].frames), (Sizes{4, 320, 448, 3}));
  EXPECT_EQ(sizes(see(R"({"video":"c50at10.mp4","min_pixels":1024,"max_pixels":102400})").videos[0].frames), (Sizes{10, 256, 320, 3}));
}

TEST(VisionInfo, ModelSeqLenLimitsTheClip) {
  const Json item = Json::parse(R"({"video":"c50at10.mp4","min_pixels":1024})", "item");
  VisionOptions o = vision(16);
  o.model_seq_len = 400;
  const at::Tensor frames = process_vision_info({&item}, o).videos.at(0).frames;
  EXPECT_LE(frames.size(0) / 2 * frames.size(1) * frames.size(2), 400 * 1024 * 9 / 10);
}

TEST(MediaItems, TheKeyDecidesAndOtherItemsAreText) {
  const Json messages = Json::parse(R"([{"role":"system","content":"hi"},{"role":"user","content":[{"video":"a.mp4"},{"text":"t"},{"type":"text","image":"b.png"},
    {"type":"image_url","image_url":{"url":"c.png"}},{"type":"image","path":"d.png"},{"type":"image","base64":"AAAA"},{"image":"e.png","video":"f.mp4"}]}])", "m");
  const auto items = media_items(messages);
  ASSERT_EQ(items.size(), 6u);
  EXPECT_TRUE(parse_media_item(*items[0]).is_video);
  EXPECT_EQ(parse_media_item(*items[1]).source, "b.png");
  EXPECT_EQ(parse_media_item(*items[2]).source, "c.png");
  EXPECT_EQ(parse_media_item(*items[3]).source, "d.png");
  EXPECT_EQ(parse_media_item(*items[4]).source, "data:image;base64,AAAA");
  EXPECT_FALSE(parse_media_item(*items[5]).is_video);
  EXPECT_EQ(media_items(Json::parse(R"([[{"role":"user","content":[{"image":"a"}]}],[{"role":"user","content":[{"image":"b"}]}]])", "m")).size(), 2u);
  EXPECT_EQ(media_items(messages.as_array().size() == 2 ? Json(Json::Array{messages.as_array()[0]}) : messages).size(), 0u);
}

TEST(MediaItems, BadItemsSayWhichKey) {
  for (const char* bad : {R"({"type":"image"})", R"({"image":3})", R"({"video":[]})", R"({"image":"a","min_pixels":"many"})", R"({"video":"a","fps":0})", R"({"video":[1]})"}) {
    EXPECT_EQ(refusal([&] { parse_media_item(Json::parse(bad, "bad")); }).kind(), ErrorKind::usage) << bad;
  }
  EXPECT_EQ(refusal([&] { media_items(Json::parse("{}", "m")); }).kind(), ErrorKind::usage);
}

TEST(Media, PublishedGlueFigures) {
  MediaOptions util;
  util.style = "qwen-vl-utils";
  MediaInputs clip = load(R"({"video":"c50at10.mp4","fps":1})", qwen3(), util);
  EXPECT_EQ(clip.video_grid_thw.at(0), (std::array<int64_t, 3>{2, 20, 28}));
  ASSERT_EQ(clip.timestamps.at(0).size(), 2u);
  EXPECT_NEAR(clip.timestamps[0][0], 0.8, 1e-12);
  EXPECT_NEAR(clip.timestamps[0][1], 4.1, 1e-12);
  clip = load(R"({"video":"c50at10.mp4","fps":2,"video_start":1,"video_end":4})", qwen3(), util);
  EXPECT_EQ(clip.video_metadata.at(0).frames_indices, (Sizes{10, 16, 22, 28, 34, 40}));
  EXPECT_NEAR(clip.timestamps.at(0).at(2), 3.7, 1e-12);
  clip = load(R"({"video":"c50at10.mp4","fps":1})", qwen2_5(), util);
  EXPECT_EQ(clip.video_grid_thw.at(0), (std::array<int64_t, 3>{2, 20, 28}));
  EXPECT_NEAR(clip.second_per_grid_ts.at(0), 2.5, 1e-12);
  clip = load(R"({"video":["p240x320.jpg","p240x320.jpg","p240x320.jpg","p240x320.jpg","p240x320.jpg"],"sample_fps":1})", qwen3(), util);
  EXPECT_EQ(clip.video_grid_thw.at(0), (std::array<int64_t, 3>{3, 22, 26}));
  EXPECT_EQ(clip.timestamps.at(0), (std::vector<double>{0.5, 2.5, 4.5}));
}

TEST(Media, APictureResizedByQwenVlUtilsIsNotResizedAgainForPatch16) {
  MediaOptions util;
  util.style = "qwen-vl-utils";
  EXPECT_EQ(load(R"({"image":"s480x640.png","max_pixels":50176,"min_pixels":50176})", qwen3(), util).image_grid_thw.at(0), (std::array<int64_t, 3>{1, 12, 16}));
  EXPECT_EQ(qwen3().image_size(192, 256), (ImageSize{224, 320}));  // [1, 14, 20]: what resizing twice would give
}

TEST(Media, AClipOfOneFrameIsThatFrameTwice) {
  for (const char* style : {"hf", "qwen-vl-utils"}) {
    MediaOptions o;
    o.style = style;
    const MediaInputs got = load(R"({"video":"c1.mp4"})", qwen3(), o);
    EXPECT_EQ(got.video_grid_thw.at(0)[0], 1) << style;
    EXPECT_EQ(got.timestamps.at(0), (std::vector<double>{0})) << style;
  }
  const MediaInputs cut = load(R"({"video":"c50at10.mp4","max_frames":1})", qwen3(), [] { MediaOptions o; o.style = "qwen-vl-utils"; return o; }());
  EXPECT_EQ(cut.video_metadata.at(0).frames_indices, (Sizes{0, 0}));
}

TEST(Media, ExifIsASwitchAndItsDefaultIsTheStyles) {
  MediaOptions hf, off, util;
  off.apply_exif = false;
  util.style = "qwen-vl-utils";
  const std::string item = R"({"image":"turned300x100.jpg"})";
  auto tall = [](const MediaInputs& m) { return m.image_grid_thw.at(0)[1] > m.image_grid_thw.at(0)[2]; };
  EXPECT_TRUE(tall(load(item, qwen3(), hf)));
  EXPECT_FALSE(tall(load(item, qwen3(), off)));
  EXPECT_FALSE(tall(load(item, qwen3(), util)));
  util.apply_exif = true;
  EXPECT_TRUE(tall(load(item, qwen3(), util)));
}

TEST(Media, RefusalsNameTheItemAndTheCause) {
  const std::string text = (std::filesystem::temp_directory_path() / ("statera_media_test_" + std::to_string(getpid()) + ".mp4")).string();
  std::ofstream(text) << "this is a text file\n#EXTM3U\n";
  struct {
    std::string item;
    ErrorKind kind;
    const char* says;
  } cases[] = {
      {R"({"image":"missing.png"})", ErrorKind::not_found, "missing.png"},
      {R"({"image":"cases.json"})", ErrorKind::bad_file, "not a picture"},
      {R"({"image":"c1.mp4"})", ErrorKind::bad_file, "not a picture"},
      {R"({"image":"."})", ErrorKind::bad_file, "is a folder"},
      {R"({"video":"."})", ErrorKind::bad_file, "is a folder"},
      {R"({"video":"missing.mp4"})", ErrorKind::not_found, "missing.mp4"},
      {R"({"video":")" + text + R"("})", ErrorKind::bad_file, "not a video"},
      {R"({"video":"cases.json"})", ErrorKind::bad_file, "not a video"},
      {R"({"image":"http://127.0.0.1:1/a.png"})", ErrorKind::denied, "--allow-urls"},
      {R"({"video":"https://127.0.0.1:1/a.mp4"})", ErrorKind::denied, "--allow-urls"},
      {R"({"image":"data:image/png,xx"})", ErrorKind::bad_file, "base64"},
      {R"({"image":"data:image/png;base64,????"})", ErrorKind::bad_file, "base64"},
      {R"({"image":"data:image/png;base64,"})", ErrorKind::bad_file, "empty"},
      {R"({"video":["frame0.jpg","rgb.png"],"sample_fps":1})", ErrorKind::mismatch, "frame 1"},
      {R"({"video":["frame0.jpg","frame1.jpg"]})", ErrorKind::usage, "sample_fps"},
      {R"({"video":"c50at10.mp4","video_start":3,"video_end":2})", ErrorKind::usage, "video_start"},
      {R"({"video":"c50at10.mp4","fps":2,"nframes":4})", ErrorKind::usage, "exclude"},
  };
  for (const auto& c : cases) {
    const Error e = refusal([&] { load(c.item, qwen3()); });
    EXPECT_EQ(e.kind(), c.kind) << e.message();
    EXPECT_TRUE(e.message().starts_with("media item 1: ")) << e.message();
    EXPECT_NE(e.message().find(c.says), std::string::npos) << e.message();
    EXPECT_EQ(e.message().find('\n'), std::string::npos) << e.message();
  }
  std::filesystem::remove(text);
  MediaOptions bad;
  bad.style = "qwen-vl-util";
  EXPECT_NE(refusal([&] { load(R"({"image":"rgb.png"})", qwen3(), bad); }).message().find("did you mean"), std::string::npos);
}

TEST(Media, OptionsGoThroughJsonWithTheFetchingOnesBesideThem) {
  MediaOptions o;
  fields_from_json(Json::parse(R"({"style":"qwen-vl-utils","apply_exif":true,"max_pixels":50176,"num_frames":4,"allow_urls":true})", "o"), o, "options");
  EXPECT_TRUE(o.fetch.allow_urls);
  EXPECT_EQ(o.num_frames, 4);
  MediaOptions again;
  fields_from_json(fields_to_json(o), again, "options");
  EXPECT_TRUE(fields_equal(o, again));
  EXPECT_FALSE(fields_equal(o, MediaOptions{}));
  EXPECT_THROW(fields_from_json(Json::parse(R"({"allow_url":true})", "o"), o, "options"), Error);
}

TEST(Media, TheForcedReaderMustBeAKnownOne) {
  setenv("FORCE_QWENVL_VIDEO_READER", "decord", 1);
  EXPECT_NO_THROW(check_forced_video_reader());
  setenv("FORCE_QWENVL_VIDEO_READER", "opencv", 1);
  EXPECT_EQ(refusal([] { check_forced_video_reader(); }).kind(), ErrorKind::usage);
  unsetenv("FORCE_QWENVL_VIDEO_READER");
}

}  // namespace
}  // namespace statera
