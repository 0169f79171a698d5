// media_item: one picture or clip of a message, as its JSON keys say it (qwen-vl-utils' schema and the forms transformers takes).
// Reads keys; opens nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "image/frames.h"
#include "image/smart_resize.h"

namespace statera {

struct MediaItem {
  bool is_video = false;
  std::string source;               // path, file://, http(s)://, data: (empty for a frame list)
  std::vector<std::string> frames;  // a clip given as pictures
  std::optional<ImageSize> resized;  // resized_height and resized_width, only together
  std::optional<double> min_pixels, max_pixels, total_pixels;
  FrameRequest request;  // num_frames counts as nframes
  std::optional<double> sample_fps, raw_fps;
};

// An item counts as media when it has a key image, image_url or video (or video_url), or one of these as its type.
bool is_media_item(const Json& item);
// All media items of a conversation (list of messages) or of a list of conversations, in order. Error(usage) when it is neither.
std::vector<const Json*> media_items(const Json& conversations);
// The keys of 1.4: image / image_url win over video. Sources: a string; {"url": string}; for typed items also url, path, base64.
// Numbers may be written as strings. Error(usage) naming the key.
MediaItem parse_media_item(const Json& item);

}  // namespace statera
