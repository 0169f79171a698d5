// media_item: see the header.
#include "image/media_item.h"

#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "image/format.h"

namespace statera {
namespace {

constexpr const char* kMediaKeys[] = {"image", "image_url", "video", "video_url"};

// A number, or a string that spells one; absent or null: nothing.
std::optional<double> number(const Json& item, const char* key) {
  const Json* v = item.get(key);
  if (!v) return std::nullopt;
  double out = NAN;
  if (v->is_number()) out = v->as_double(key);
  if (v->is_string()) {
    const std::string& text = v->as_string();
    char* end = nullptr;
    out = std::strtod(text.c_str(), &end);
    if (end == text.c_str() || *end != '\0') out = NAN;
  }
  if (!std::isfinite(out)) throw Error(ErrorKind::usage, fmt::format("{}: expected a number", key));
  return out;
}

std::optional<double> positive(const Json& item, const char* key) {
  auto out = number(item, key);
  if (out && !(*out > 0 && *out < 1e15)) throw Error(ErrorKind::usage, fmt::format("{}: expected a positive number", key));
  return out;
}

std::string source_text(const Json& value, const std::string& key) {
  if (value.is_string()) return value.as_string();
  if (const Json* url = value.get("url"); url && url->is_string()) return url->as_string();
  throw Error(ErrorKind::usage, key + ": expected a path, URL or data URI");
}

void read_video_value(const Json& value, const std::string& key, MediaItem& out) {
  out.is_video = true;
  if (!value.is_array()) {
    out.source = source_text(value, key);
    return;
  }
  for (const Json& frame : value.as_array()) out.frames.push_back(source_text(frame, key));
  if (out.frames.empty()) throw Error(ErrorKind::usage, key + ": an empty list of frames");
}

void read_payload(const Json& item, MediaItem& out) {
  for (const char* key : {"image", "image_url"}) {
    if (const Json* v = item.get(key)) {
      out.source = source_text(*v, key);
      return;
    }
  }
  for (const char* key : {"video", "video_url"}) {
    if (const Json* v = item.get(key)) return read_video_value(*v, key, out);
  }
  const std::string type = item.get_string("type", "");
  const bool video = type.starts_with("video");
  for (const char* key : {"url", "path"}) {
    if (const Json* v = item.get(key)) {
      if (video) return read_video_value(*v, key, out);
      out.source = source_text(*v, key);
      return;
    }
  }
  if (const Json* v = item.get("base64"); v && !video) {
    const std::string& text = v->as_string("base64");
    out.source = text.starts_with("data:") ? text : "data:image;base64," + text;
    return;
  }
  throw Error(ErrorKind::usage, fmt::format("an item of type \"{}\" without image, image_url or video", type));
}

}  // namespace

bool is_media_item(const Json& item) {
  if (!item.is_object()) return false;
  const Json* type = item.get("type");
  for (const char* key : kMediaKeys) {
    if (item.has(key) || (type && type->is_string() && type->as_string() == key)) return true;
  }
  return false;
}

std::vector<const Json*> media_items(const Json& conversations) {
  std::vector<const Json*> out;
  auto scan = [&](const Json& messages) {
    if (!messages.is_array()) throw Error(ErrorKind::usage, "messages: expected a list");
    for (const Json& message : messages.as_array()) {
      const Json* content = message.get("content");
      if (!content || !content->is_array()) continue;
      for (const Json& item : content->as_array()) {
        if (is_media_item(item)) out.push_back(&item);
      }
    }
  };
  if (!conversations.is_array()) throw Error(ErrorKind::usage, "messages: expected a list");
  const auto& list = conversations.as_array();
  if (list.empty()) throw Error(ErrorKind::usage, "messages: an empty list");
  if (list.front().is_object()) {
    scan(conversations);
  } else {
    for (const Json& one : list) scan(one);
  }
  return out;
}

MediaItem parse_media_item(const Json& item) {
  MediaItem out;
  read_payload(item, out);
  const auto height = positive(item, "resized_height"), width = positive(item, "resized_width");
  if (height && width) out.resized = ImageSize{static_cast<int64_t>(*height), static_cast<int64_t>(*width)};
  out.min_pixels = positive(item, "min_pixels");
  out.max_pixels = positive(item, "max_pixels");
  if (!out.is_video) return out;
  out.total_pixels = positive(item, "total_pixels");
  out.request.fps = positive(item, "fps");
  out.request.nframes = positive(item, "nframes");
  if (!out.request.nframes) out.request.nframes = positive(item, "num_frames");
  out.request.min_frames = positive(item, "min_frames");
  out.request.max_frames = positive(item, "max_frames");
  out.request.video_start = number(item, "video_start");
  out.request.video_end = number(item, "video_end");
  out.sample_fps = positive(item, "sample_fps");
  out.raw_fps = positive(item, "raw_fps");
  return out;
}

}  // namespace statera
