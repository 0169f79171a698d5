// media: see the header. differs: from transformers in style hf: an item's own pixel, frame and trim keys are honoured; a frame list
// keeps all its frames unless fps or num_frames is asked for, and needs sample_fps where time matters.
#include "image/media.h"

#include <cmath>

#include "base/error.h"
#include "base/strings.h"
#include "image/format.h"
#include "image/open_media.h"

namespace statera {
namespace {

constexpr const char* kStyles[] = {"hf", "qwen-vl-utils"};

MediaItem with_defaults(const Json& json, const MediaOptions& o) {
  MediaItem item = parse_media_item(json);
  if (!item.min_pixels) item.min_pixels = o.min_pixels;
  if (!item.max_pixels) item.max_pixels = o.max_pixels;
  if (item.is_video && !item.request.fps && !item.request.nframes) {
    item.request.fps = o.fps;
    if (o.num_frames) item.request.nframes = static_cast<double>(*o.num_frames);
  }
  return item;
}

PixelOverride pixels_of(const MediaItem& item) { return {item.min_pixels, item.max_pixels, item.total_pixels, item.resized}; }

struct Context {
  const QwenProcessor& processor;
  FetchOptions fetch;
  DecodeOptions decode;
};

struct Clip {
  Patches patches;
  VideoMetadata metadata;
};

Clip frame_list_clip(const MediaItem& item, const Context& c) {
  std::vector<at::Tensor> frames;
  for (const std::string& source : item.frames) frames.push_back(open_image(source, c.fetch, c.decode));
  const double n = static_cast<double>(frames.size());
  const bool timed = c.processor.generation != QwenGeneration::qwen2 || item.request.fps;
  if (timed && !item.sample_fps) {
    throw Error(ErrorKind::usage, "a list of frames needs \"sample_fps\" (the rate it was sampled at)");
  }
  Clip out;
  const double rate = item.sample_fps.value_or(2.0), raw = item.raw_fps.value_or(rate);
  std::vector<int64_t> chosen(frames.size());
  for (size_t i = 0; i < chosen.size(); ++i) chosen[i] = static_cast<int64_t>(i);
  if (item.request.fps || item.request.nframes) chosen = c.processor.sample(item.request, static_cast<int64_t>(frames.size()), rate);
  std::vector<at::Tensor> used;
  for (int64_t i : chosen) {
    used.push_back(frames[static_cast<size_t>(i)]);
    out.metadata.frames_indices.push_back(static_cast<int64_t>(std::nearbyint(static_cast<double>(i) * raw / rate)));
  }
  out.metadata.fps = raw;
  out.metadata.total_num_frames = n / rate * raw;
  out.patches = c.processor.video_patches(stack_frames(used, static_cast<int64_t>(used.size())), pixels_of(item));
  return out;
}

Clip file_clip(const MediaItem& item, const Context& c) {
  const QwenProcessor& p = c.processor;
  VideoFile video = open_video(item.source, c.fetch, c.decode);
  const VideoInfo& info = video.info();
  return with_context(source_name(item.source), [&] {
    const FrameRange range = info.frames == 1 ? FrameRange{0, 0, 1} : trim_range(item.request, info.frames, info.fps);
    std::vector<int64_t> indices = p.sample(item.request, range.count, info.fps);
    for (int64_t& i : indices) i += range.start;
    const int64_t n = static_cast<int64_t>(indices.size());
    const ImageSize size = p.video.do_resize ? p.video_size(n, info.height, info.width, pixels_of(item)) : ImageSize{info.height, info.width};
    const at::Tensor frames = read_frames(video, indices, size, [&](const at::Tensor& frame) { return resize_u8(frame, size, p.video.resample); });
    return Clip{patchify(frames, p.video.layout, p.video.norm), {info.fps, indices, static_cast<double>(range.count), "ffmpeg"}};
  });
}

// What qwen-vl-utils' users do next: with patch 16 the processor must not resize again, with patch 14 it does as usual.
QwenProcessor after_vision_info(const QwenProcessor& processor) {
  QwenProcessor out = processor;
  if (processor.generation == QwenGeneration::qwen3) out.image.do_resize = out.video.do_resize = false;
  return out;
}

struct Parts {
  std::vector<Patches> images, videos;
  std::vector<VideoMetadata> metadata;
};

void add_hf(const MediaItem& item, const Context& c, Parts& out) {
  if (!item.is_video) {
    const at::Tensor picture = open_image(item.source, c.fetch, c.decode);
    out.images.push_back(with_context(source_name(item.source), [&] { return c.processor.image_patches(picture, pixels_of(item)); }));
    return;
  }
  Clip clip = item.source.empty() ? frame_list_clip(item, c) : file_clip(item, c);
  out.videos.push_back(std::move(clip.patches));
  out.metadata.push_back(std::move(clip.metadata));
}

void add_util(const MediaItem& item, const Context& c, Parts& out) {
  const VisionOptions vision{c.processor.image.layout.patch_size, c.decode, c.fetch, 0};
  if (!item.is_video) {
    out.images.push_back(c.processor.image_patches(fetch_image(item, vision)));
    return;
  }
  VideoClip clip = fetch_video(item, vision);
  out.videos.push_back(c.processor.video_patches(clip.frames));
  out.metadata.push_back(std::move(clip.metadata));
}

MediaInputs assemble(const Parts& parts, const PatchLayout& layout) {
  MediaInputs out;
  ProcessedImages images = concatenate(parts.images), videos = concatenate(parts.videos);
  out.pixel_values = images.pixel_values;
  out.image_grid_thw = std::move(images.grid_thw);
  out.pixel_values_videos = videos.pixel_values;
  out.video_grid_thw = std::move(videos.grid_thw);
  for (const VideoMetadata& m : parts.metadata) {
    out.timestamps.push_back(patch_timestamps(m.frames_indices, m.fps, layout.temporal_patch_size));
    out.second_per_grid_ts.push_back(static_cast<double>(layout.temporal_patch_size) / m.sampled_fps());
  }
  out.video_metadata = parts.metadata;
  return out;
}

}  // namespace

MediaInputs load_media(const std::vector<const Json*>& items, const QwenProcessor& processor, const MediaOptions& o) {
  const bool util = o.style == kStyles[1];
  if (!util && o.style != kStyles[0]) {
    throw Error(ErrorKind::usage, fmt::format("style \"{}\": hf and qwen-vl-utils are known{}", o.style, did_you_mean(o.style, {kStyles[0], kStyles[1]})));
  }
  if (o.fps && o.num_frames) throw Error(ErrorKind::usage, "fps and num_frames exclude each other");
  check_forced_video_reader();
  const QwenProcessor used = util ? after_vision_info(processor) : processor;
  const DecodeOptions decode{util ? AlphaMode::white_rgba : AlphaMode::drop, o.apply_exif.value_or(!util), o.max_image_pixels};
  const Context context{used, o.fetch, decode};
  Parts parts;
  for (size_t i = 0; i < items.size(); ++i) {
    with_context(fmt::format("media item {}", i + 1), [&] {
      const MediaItem item = with_defaults(*items[i], o);
      util ? add_util(item, context, parts) : add_hf(item, context, parts);
    });
  }
  return assemble(parts, used.video.layout);
}

}  // namespace statera
