// vision_info: qwen-vl-utils' process_vision_info: message items to resized RGB pictures and clips with their metadata. Where the
// published code fails by accident it is put right (marked differs: in the .cpp); sizes, indices and pixels are its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "image/decode.h"
#include "image/fetch.h"
#include "image/media_item.h"

namespace statera {

struct VideoMetadata {
  double fps = 0;                       // of the clip as stored
  std::vector<int64_t> frames_indices;  // which of its frames these are
  double total_num_frames = 0;          // of the (trimmed) clip
  std::string video_backend;            // "ffmpeg", empty for a frame list
  // Frames per second of what was taken.
  double sampled_fps() const { return static_cast<double>(frames_indices.size()) / total_num_frames * fps; }
  Json to_json() const;
};

struct VideoClip {
  at::Tensor frames;  // u8 [T,H,W,3]
  VideoMetadata metadata;
  double sample_fps = 0;
};

struct VisionOptions {
  int64_t image_patch_size = 14;
  DecodeOptions decode{AlphaMode::white_rgba, /*apply_exif=*/false};
  FetchOptions fetch;
  int64_t model_seq_len = 0;  // 0: MODEL_SEQ_LEN of the environment, else 128000
};

struct VisionInputs {
  std::vector<at::Tensor> images;  // u8 [H,W,3]
  std::vector<VideoClip> videos;
  // {do_sample_frames: false}, and fps: [sample_fps...] unless metadata is passed on.
  Json video_kwargs(bool with_metadata) const;
};

VisionInputs process_vision_info(const std::vector<const Json*>& items, const VisionOptions& options);
at::Tensor fetch_image(const MediaItem& item, const VisionOptions& options);
VideoClip fetch_video(const MediaItem& item, const VisionOptions& options);

}  // namespace statera
