// Flags to the options of image/media.h.
#include "api/media_flags.h"

#include "base/error.h"
#include "image/media.h"

namespace statera {

MediaOptions media_options(const MediaFlags& flags, const std::string& base_dir) {
  if (flags.media_style != "hf" && flags.media_style != "qwen-vl-utils") {
    throw Error(ErrorKind::usage, "media_style: \"" + flags.media_style + "\" is neither hf nor qwen-vl-utils");
  }
  MediaOptions out;
  out.style = flags.media_style;
  out.apply_exif = flags.exif;
  out.fetch.allow_urls = flags.allow_urls;
  out.fetch.allow_private_addresses = flags.allow_private_addresses;
  out.fetch.base_dir = flags.base_dir.empty() ? base_dir : flags.base_dir;
  out.min_pixels = flags.min_pixels;
  out.max_pixels = flags.max_pixels;
  out.fps = flags.fps;
  out.num_frames = flags.num_frames;
  return out;
}

}  // namespace statera
