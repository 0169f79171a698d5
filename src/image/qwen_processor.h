// qwen_processor: transformers' image and video processors of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: their configuration files, target
// sizes, frame sampling and rows. Takes decoded pixels; where they come from is media.h's matter.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "image/frames.h"
#include "image/patchify.h"
#include "image/resize.h"
#include "image/vision_info.h"

namespace statera {

enum class QwenGeneration { qwen2, qwen2_5, qwen3 };

// What both kinds of processor_config have. Pixels, not edges, despite the names in the files.
struct ProcessorConfig {
  bool do_resize = true;
  Resample resample = Resample::bicubic;
  Normalization norm;
  PatchLayout layout;
  double shortest_edge = 0, longest_edge = 0;
};

struct VideoProcessorConfig : ProcessorConfig {
  bool clip_budget = false;  // Qwen3-VL's class: the budget covers all frames; sampling by linspace
  bool do_sample_frames = false;
  SampleRule sampling;
  bool cap_pixels_per_frame = false;
  double max_video_tokens = 0;
};

// What one item or call wants otherwise. Pixels of a clip are per frame, except total_pixels.
struct PixelOverride {
  std::optional<double> min_pixels{}, max_pixels{}, total_pixels{};
  std::optional<ImageSize> resized{};
};

struct ProcessedImages {
  at::Tensor pixel_values;  // f32 [sum of t*h*w, 3 * temporal * patch^2]; undefined when there are none
  std::vector<std::array<int64_t, 3>> grid_thw;
};

class QwenProcessor {
 public:
  // Reads processor_config.json (nested), preprocessor_config.json and video_preprocessor_config.json of a model folder;
  // config.json's model_type decides the generation unless given. Errors: not_found, bad_file and unsupported, naming the file.
  static QwenProcessor load(const std::string& model_dir, std::optional<QwenGeneration> generation = {});
  // image: preprocessor_config.json's object; video: video_preprocessor_config.json's, or nullptr: image's keys are used.
  static QwenProcessor from_json(QwenGeneration generation, const Json& image, const Json* video);

  // The size a picture [height, width] gets.
  ImageSize image_size(int64_t height, int64_t width, const PixelOverride& pixels = {}) const;
  ImageSize video_size(int64_t frames, int64_t height, int64_t width, const PixelOverride& pixels = {}) const;
  // Frame numbers within a cut of `frames` at `video_fps`. request.fps or nframes (else the config's) decide; without either and
  // with do_sample_frames off: all.
  std::vector<int64_t> sample(const FrameRequest& request, int64_t frames, double video_fps) const;

  // u8 [H,W,3] / [T,H,W,3] to rows; pictures are resized here unless do_resize is off.
  Patches image_patches(const at::Tensor& image, const PixelOverride& pixels = {}) const;
  Patches video_patches(const at::Tensor& frames, const PixelOverride& pixels = {}) const;
  ProcessedImages process_images(const std::vector<at::Tensor>& images) const;

  QwenGeneration generation = QwenGeneration::qwen3;
  ProcessorConfig image;
  VideoProcessorConfig video;
};

// Rows of several pictures or clips one after another.
ProcessedImages concatenate(const std::vector<Patches>& parts);

// qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe and their processor class names; nothing when unknown.
std::optional<QwenGeneration> qwen_generation(std::string_view name);

}  // namespace statera
