// MediaFlags: how pictures and clips are found, sampled and sized: the flags shared by everything that reads messages. No tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "api/paths.h"

namespace statera {

struct MediaOptions;  // image/media.h

struct MediaFlags {
  std::string media_style = "hf";
  bool allow_urls = false, allow_private_addresses = false;
  std::string base_dir;
  std::optional<bool> exif;
  std::optional<double> min_pixels, max_pixels, fps;
  std::optional<int64_t> num_frames;
  template <class V>
  void fields(V& v) {
    v("media_style", media_style, "hf (as transformers' processors load) or qwen-vl-utils");
    v("allow_urls", allow_urls, "fetch http and https URLs found in message files");
    v("allow_private_addresses", allow_private_addresses, "let URLs reach loopback, private and link-local addresses");
    v("base_dir", base_dir, "folder that relative paths start from; that of the message file when not given");
    v("exif", exif, "turn pictures as their EXIF orientation says; by style when not given");
    v("min_pixels", min_pixels, "smallest size of a picture (of a frame for clips), pixels");
    v("max_pixels", max_pixels, "largest size of a picture (of a frame for clips), pixels");
    v("fps", fps, "frames per second taken from clips");
    v("num_frames", num_frames, "frames taken from each clip");
  }
};

// base_dir: for relative paths when the flags name none. Error(usage) for an unknown style.
MediaOptions media_options(const MediaFlags& flags, const std::string& base_dir = "");

}  // namespace statera
