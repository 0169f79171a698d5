// vision_info: see the header. differs: from the published package are
//   numeric strings are numbers; frames of a list use the patch size as given; raw_fps also spaces a list's indices;
//   a size that would shrink to 0 is at least one token; max_pixels below the default video minimum lowers that minimum;
//   a clip (or cut, or max_frames) of one frame is that frame twice; there is one reader and so no second try with another.
#include "image/vision_info.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "image/format.h"
#include "image/open_media.h"
#include "image/resize.h"

namespace statera {
namespace {

constexpr int64_t kMergeSize = 2, kFrameFactor = 2;

ImageSize at_least_one_token(ImageSize size, int64_t factor) { return {std::max(size.height, factor), std::max(size.width, factor)}; }

int64_t model_seq_len(const VisionOptions& o) { return o.model_seq_len > 0 ? o.model_seq_len : model_seq_len_from_environment(); }

ImageSize clip_size(const MediaItem& item, int64_t n, int64_t height, int64_t width, const VisionOptions& o) {
  const int64_t factor = o.image_patch_size * kMergeSize;
  if (item.resized) return at_least_one_token(smart_resize(ResizeRule::util, item.resized->height, item.resized->width, factor, {}, {}), factor);
  const FrameBudget b = frame_budget(n, factor, item.min_pixels, item.max_pixels, item.total_pixels, model_seq_len(o));
  if (item.max_pixels && *item.max_pixels > b.max_pixels) {
    log_warn(fmt::format("max_pixels {} exceeds this clip's limit of {:.0f} a frame", *item.max_pixels, b.max_pixels));
  }
  return at_least_one_token(smart_resize(ResizeRule::util, height, width, factor, b.min_pixels, b.max_pixels), factor);
}

VideoClip clip_of_frames(const MediaItem& item, const VisionOptions& o) {
  MediaItem one = item;
  one.is_video = false;
  one.frames.clear();
  std::vector<at::Tensor> frames;
  for (const std::string& source : item.frames) {
    one.source = source;
    frames.push_back(fetch_image(one, o));
  }
  const int64_t n = ceil_by_factor(static_cast<double>(frames.size()), kFrameFactor);
  VideoClip out;
  out.sample_fps = item.sample_fps.value_or(2.0);
  const double raw = item.raw_fps.value_or(out.sample_fps);
  out.metadata.fps = raw;
  for (int64_t i = 0; i < n; ++i) {
    out.metadata.frames_indices.push_back(static_cast<int64_t>(std::nearbyint(static_cast<double>(i) * raw / out.sample_fps)));
  }
  out.metadata.total_num_frames = static_cast<double>(n) / out.sample_fps * raw;
  const at::Tensor stacked = stack_frames(frames, n);
  out.frames = resize_through_float(stacked, clip_size(item, n, stacked.size(1), stacked.size(2), o));
  return out;
}

struct Choice {
  std::vector<int64_t> indices;
  double count = 0;  // frames of the cut
};

Choice choose_frames(const FrameRequest& request, const VideoInfo& info) {
  Choice out;
  const bool one_wanted = request.max_frames && *request.max_frames < kFrameFactor && !request.nframes;
  if (info.frames == 1) {
    out.indices = {0, 0};
    out.count = 2;  // shown twice, at its own rate
    return out;
  }
  const FrameRange range = trim_range(request, info.frames, info.fps);
  out.count = static_cast<double>(range.count);
  if (one_wanted) {
    out.indices = {range.start, range.start};
  } else {
    out.indices = linspace_indices_f32(range.start, range.end, smart_nframes(request, range.count, info.fps));
  }
  return out;
}

}  // namespace

Json VideoMetadata::to_json() const {
  Json out = Json::object();
  out.set("fps", fps);
  out.set("frames_indices", Json(frames_indices));
  out.set("total_num_frames", total_num_frames);
  if (!video_backend.empty()) out.set("video_backend", video_backend);
  return out;
}

Json VisionInputs::video_kwargs(bool with_metadata) const {
  Json out = Json::object();
  out.set("do_sample_frames", false);
  if (with_metadata) return out;
  Json fps = Json::array();
  for (const VideoClip& clip : videos) fps.push(clip.sample_fps);
  out.set("fps", fps);
  return out;
}

at::Tensor fetch_image(const MediaItem& item, const VisionOptions& o) {
  const int64_t factor = o.image_patch_size * kMergeSize;
  const at::Tensor image = open_image(item.source, o.fetch, o.decode);
  return with_context(source_name(item.source), [&] {
    const ImageSize size = item.resized ? smart_resize(ResizeRule::util, item.resized->height, item.resized->width, factor, {}, {})
                                        : smart_resize(ResizeRule::util, image.size(0), image.size(1), factor, item.min_pixels, item.max_pixels);
    return resize_like_pillow(image, at_least_one_token(size, factor));
  });
}

VideoClip fetch_video(const MediaItem& item, const VisionOptions& o) {
  check_forced_video_reader();
  if (item.source.empty()) return clip_of_frames(item, o);
  VideoFile video = open_video(item.source, o.fetch, o.decode);
  const VideoInfo& info = video.info();
  return with_context(source_name(item.source), [&] {
    const Choice choice = choose_frames(item.request, info);
    const int64_t n = static_cast<int64_t>(choice.indices.size());
    const ImageSize size = clip_size(item, n, info.height, info.width, o);
    VideoClip out;
    out.metadata = {info.fps, choice.indices, choice.count, "ffmpeg"};
    out.sample_fps = static_cast<double>(n) / choice.count * info.fps;
    out.frames = read_frames(video, choice.indices, size, [&](const at::Tensor& frame) { return resize_through_float(frame, size); });
    return out;
  });
}

VisionInputs process_vision_info(const std::vector<const Json*>& items, const VisionOptions& options) {
  VisionInputs out;
  for (const Json* item : items) {
    const MediaItem parsed = parse_media_item(*item);
    if (parsed.is_video) {
      out.videos.push_back(fetch_video(parsed, options));
    } else {
      out.images.push_back(fetch_image(parsed, options));
    }
  }
  return out;
}

}  // namespace statera
