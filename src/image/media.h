// media: the one call that turns the media items of messages into what a Qwen-VL model takes. Two styles: transformers' processors
// as they load by themselves ("hf"), and qwen-vl-utils in front of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "image/fetch.h"
#include "image/qwen_processor.h"
#include "image/vision_info.h"

namespace statera {

struct MediaOptions {
  std::string style = "hf";                   // "hf" or "qwen-vl-utils"
  std::optional<bool> apply_exif;             // default: on for hf, off for qwen-vl-utils
  FetchOptions fetch;                         // allow_urls, base_dir, limits
  int64_t max_image_pixels = 178'956'970;     // of one picture or frame, as stored
  // As if every item that does not say otherwise had these keys (pixels of a clip: per frame).
  std::optional<double> min_pixels, max_pixels, fps;
  std::optional<int64_t> num_frames;

  template <class V>
  void fields(V& v) {
    v("style", style, "hf (transformers' processors) or qwen-vl-utils");
    v("apply_exif", apply_exif, "turn pictures as their EXIF orientation says (default: the style's)");
    v("max_image_pixels", max_image_pixels, "largest picture or frame read, width x height");
    v("min_pixels", min_pixels, "smallest picture or frame, pixels");
    v("max_pixels", max_pixels, "largest picture or frame, pixels");
    v("fps", fps, "frames per second taken from a clip");
    v("num_frames", num_frames, "frames taken from a clip");
    fetch.fields(v);
  }
};

struct MediaInputs {
  at::Tensor pixel_values;  // f32 [rows, 3 * temporal * patch^2]; undefined when there are no pictures
  std::vector<std::array<int64_t, 3>> image_grid_thw;
  at::Tensor pixel_values_videos;
  std::vector<std::array<int64_t, 3>> video_grid_thw;
  std::vector<VideoMetadata> video_metadata;
  std::vector<std::vector<double>> timestamps;  // per clip, seconds of each temporal patch (Qwen3-VL prints them with %.1f)
  std::vector<double> second_per_grid_ts;       // per clip, seconds a temporal patch stands for (Qwen2.5-VL)
};

// Items in order of appearance (media_items of vision_info.h's schema). Errors name the source and the item's number.
MediaInputs load_media(const std::vector<const Json*>& items, const QwenProcessor& processor, const MediaOptions& options);

}  // namespace statera
