// Configuration files, the published grids of the processors, and what a model folder may get wrong.
#include "image/qwen_processor.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace statera {
namespace {

const char* kQ3Image = R"({"size":{"shortest_edge":65536,"longest_edge":16777216},"patch_size":16,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]})";
const char* kQ3Video = R"({"size":{"shortest_edge":4096,"longest_edge":25165824},"video_processor_type":"Qwen3VLVideoProcessor"})";

QwenProcessor qwen3(const std::string& video = kQ3Video) {
  const Json v = Json::parse(video, "video");
  return QwenProcessor::from_json(QwenGeneration::qwen3, Json::parse(kQ3Image, "image"), &v);
}

// A model folder that lives as long as the test.
class Folder {
 public:
  Folder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() / ("statera_processor_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder& with(const std::string& name, const std::string& text) {
    std::ofstream(path_ / name) << text;
    return *this;
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

ErrorKind refusal(const Folder& folder) {
  try {
    QwenProcessor::load(folder.path());
  } catch (const Error& e) {
    EXPECT_NE(e.message().find(folder.path()), std::string::npos) << e.message();
    return e.kind();
  }
  ADD_FAILURE() << "loaded";
  return ErrorKind::usage;
}

TEST(QwenProcessor, NativeSamplingAndSizeOfAClip) {
  const QwenProcessor p = qwen3();
  EXPECT_EQ(p.sample({}, 100, 25), (std::vector<int64_t>{0, 14, 28, 42, 57, 71, 85, 99}));
  EXPECT_EQ(p.sample({.fps = 4}, 100, 25).size(), 16u);
  EXPECT_EQ(p.sample({.nframes = 10}, 100, 25), (std::vector<int64_t>{0, 11, 22, 33, 44, 55, 66, 77, 88, 99}));
  EXPECT_EQ(p.video_size(8, 720, 1280), (ImageSize{704, 1280}));
  EXPECT_EQ(p.video_size(1, 64, 64), (ImageSize{64, 64}));  // shown for a whole temporal patch
}

TEST(QwenProcessor, TheCapOfPixelsPerFrameGivesThePublishedTokens) {
  const QwenProcessor p = qwen3(R"({"size":{"shortest_edge":4096,"longest_edge":25165824},"cap_pixels_per_frame":true})");
  auto tokens = [&](int64_t frames) {
    const ImageSize s = p.video_size(frames, 720, 1280);
    return frames / 2 * s.height * s.width / 1024;
  };
  EXPECT_EQ(tokens(8), 2880);
  EXPECT_EQ(tokens(60), 11700);
}

TEST(QwenProcessor, RowsOfAPictureHaveThePublishedShape) {
  const at::Tensor picture = at::full({480, 640, 3}, 128, at::kByte);
  const Patches q3 = qwen3().image_patches(picture);
  EXPECT_EQ(q3.values.sizes(), (at::IntArrayRef{1200, 1536}));
  EXPECT_EQ(q3.grid_thw, (std::array<int64_t, 3>{1, 30, 40}));
  EXPECT_NEAR(q3.values.const_data_ptr<float>()[777], 0.00392157f, 1e-7);
  const QwenProcessor q25 = QwenProcessor::from_json(QwenGeneration::qwen2_5, Json::parse(R"({"min_pixels":3136,"max_pixels":12845056})", "x"), nullptr);
  EXPECT_EQ(q25.image_patches(picture).values.sizes(), (at::IntArrayRef{1564, 1176}));
  EXPECT_EQ(q25.process_images({picture, picture}).pixel_values.size(0), 2 * 1564);
  EXPECT_FALSE(q25.process_images({}).pixel_values.defined());
}

TEST(QwenProcessor, WithoutAVideoFileTheImageKeysHoldForClips) {
  const QwenProcessor p = QwenProcessor::from_json(QwenGeneration::qwen2, Json::parse(R"({"min_pixels":3136,"max_pixels":12845056})", "x"), nullptr);
  EXPECT_EQ(p.video.longest_edge, 12845056);
  EXPECT_FALSE(p.video.do_sample_frames);
  EXPECT_EQ(p.sample({}, 5, 25).size(), 5u);
  EXPECT_EQ(p.sample({.nframes = 4}, 100, 25).size(), 4u);
}

TEST(QwenProcessor, ClassDefaultsFillWhatAFileOmits) {
  const QwenProcessor p = QwenProcessor::from_json(QwenGeneration::qwen3, Json::object(), nullptr);
  EXPECT_EQ(p.image.layout.patch_size, 14);  // the shared image class's
  EXPECT_EQ(p.image.longest_edge, 1003520);
  EXPECT_EQ(p.video.layout.patch_size, 16);
  EXPECT_EQ(p.video.shortest_edge, 131072);
  EXPECT_EQ(p.video.longest_edge, 786432);
  EXPECT_EQ(*p.video.sampling.fps, 2);
  const QwenProcessor none = qwen3(R"({"fps":null,"size":{"shortest_edge":4096,"longest_edge":25165824}})");
  EXPECT_EQ(none.sample({}, 100, 25).size(), 100u);
}

TEST(QwenProcessor, AModelFolderIsReadAsTransformersReadsIt) {
  Folder plain;
  plain.with("config.json", R"({"model_type":"qwen3_vl_moe"})").with("preprocessor_config.json", kQ3Image).with("video_preprocessor_config.json", kQ3Video);
  const QwenProcessor a = QwenProcessor::load(plain.path());
  EXPECT_EQ(a.generation, QwenGeneration::qwen3);
  EXPECT_EQ(a.video.longest_edge, 25165824);
  Folder nested;
  nested.with("processor_config.json", std::string(R"({"image_processor":)") + kQ3Image + R"(,"video_processor":)" + kQ3Video + R"(,"processor_class":"Qwen3VLProcessor"})")
      .with("preprocessor_config.json", R"({"patch_size":99,"processor_class":"Qwen2VLProcessor"})");
  const QwenProcessor b = QwenProcessor::load(nested.path());
  EXPECT_EQ(b.generation, QwenGeneration::qwen3);
  EXPECT_EQ(b.image.layout.patch_size, 16);
  Folder by_class;
  by_class.with("preprocessor_config.json", R"({"processor_class":"Qwen2_5_VLProcessor"})");
  EXPECT_EQ(QwenProcessor::load(by_class.path()).generation, QwenGeneration::qwen2_5);
}

TEST(QwenProcessor, BadFoldersAreOneClearError) {
  EXPECT_EQ(refusal(Folder()), ErrorKind::not_found);
  EXPECT_EQ(refusal(Folder().with("preprocessor_config.json", "{}")), ErrorKind::unsupported);
  EXPECT_EQ(refusal(Folder().with("preprocessor_config.json", "{")), ErrorKind::bad_file);
  for (const char* bad : {R"({"patch_size":0})", R"({"image_std":[0,1,1]})", R"({"image_mean":[1,2]})", R"({"size":{"shortest_edge":-1}})", R"({"rescale_factor":0})",
                          R"({"merge_size":"two"})"}) {
    EXPECT_EQ(refusal(Folder().with("config.json", R"({"model_type":"qwen2_vl"})").with("preprocessor_config.json", bad)), ErrorKind::bad_file) << bad;
  }
  EXPECT_EQ(refusal(Folder().with("config.json", R"({"model_type":"qwen2_vl"})").with("preprocessor_config.json", R"({"resample":1})")), ErrorKind::unsupported);
}

}  // namespace
}  // namespace statera
