// qwen_processor: see the header. Class defaults are those of transformers' Qwen2VLImageProcessor (which Qwen3-VL reuses),
// Qwen2VLVideoProcessor and Qwen3VLVideoProcessor.
#include "image/qwen_processor.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "image/format.h"

namespace statera {
namespace {

constexpr std::array<double, 3> kClipMean = {0.48145466, 0.4578275, 0.40821073}, kClipStd = {0.26862954, 0.26130258, 0.27577711};

// A number for all channels or a list of three.
void read_channels(const Json& j, const char* key, std::array<double, 3>& out) {
  const Json* v = j.get(key);
  if (!v) return;
  if (v->is_number()) {
    out.fill(v->as_double(key));
    return;
  }
  const auto& list = v->as_array(key);
  if (list.size() != 3) throw Error(ErrorKind::bad_file, fmt::format("{}: expected three numbers", key));
  for (size_t c = 0; c < 3; ++c) out[c] = list[c].as_double(key);
}

int64_t positive_int(const Json& j, const char* key, int64_t otherwise) {
  const int64_t v = j.get_int(key, otherwise);
  if (v < 1 || v > 4096) throw Error(ErrorKind::bad_file, fmt::format("{}: {} is out of range", key, v));
  return v;
}

// Pillow's numbers for filters.
Resample read_resample(const Json& j) {
  const int64_t v = j.get_int("resample", 3);
  if (v == 3) return Resample::bicubic;
  if (v == 2) return Resample::bilinear;
  throw Error(ErrorKind::unsupported, fmt::format("resample: filter {} (2, bilinear, and 3, bicubic, are supported)", v));
}

void read_size(const Json& j, ProcessorConfig& out) {
  // An explicit size replaces the class default whole; min_pixels and max_pixels are its legacy names.
  if (const Json* size = j.get("size")) {
    out.shortest_edge = size->get_double("shortest_edge", size->get_double("min_pixels", out.shortest_edge));
    out.longest_edge = size->get_double("longest_edge", size->get_double("max_pixels", out.longest_edge));
  }
  out.shortest_edge = j.get_double("min_pixels", out.shortest_edge);
  out.longest_edge = j.get_double("max_pixels", out.longest_edge);
  if (!(out.shortest_edge >= 1) || !(out.longest_edge >= 1)) throw Error(ErrorKind::bad_file, "size: shortest_edge and longest_edge must be positive");
}

void read_common(const Json& j, ProcessorConfig& out) {
  out.do_resize = j.get_bool("do_resize", out.do_resize);
  out.resample = read_resample(j);
  out.norm.do_rescale = j.get_bool("do_rescale", out.norm.do_rescale);
  out.norm.rescale_factor = j.get_double("rescale_factor", out.norm.rescale_factor);
  out.norm.do_normalize = j.get_bool("do_normalize", out.norm.do_normalize);
  read_channels(j, "image_mean", out.norm.mean);
  read_channels(j, "image_std", out.norm.std);
  for (double s : out.norm.std) {
    if (!(s != 0) || !std::isfinite(s)) throw Error(ErrorKind::bad_file, "image_std: zero or not finite");
  }
  if (!(out.norm.rescale_factor > 0)) throw Error(ErrorKind::bad_file, "rescale_factor: must be positive");
  out.layout.patch_size = positive_int(j, "patch_size", out.layout.patch_size);
  out.layout.temporal_patch_size = positive_int(j, "temporal_patch_size", out.layout.temporal_patch_size);
  out.layout.merge_size = positive_int(j, "merge_size", out.layout.merge_size);
  read_size(j, out);
}

ProcessorConfig image_defaults() {
  ProcessorConfig out;
  out.norm.mean = kClipMean;
  out.norm.std = kClipStd;
  out.shortest_edge = 56 * 56;
  out.longest_edge = 28 * 28 * 1280;
  return out;
}

VideoProcessorConfig video_defaults(bool qwen3) {
  VideoProcessorConfig out;
  out.clip_budget = qwen3;
  if (qwen3) {
    out.norm.mean = out.norm.std = {0.5, 0.5, 0.5};
    out.layout.patch_size = 16;
    out.shortest_edge = 128 * 32 * 32;
    out.longest_edge = 32 * 32 * 768;
    out.do_sample_frames = true;
    out.sampling.fps = 2;
    out.max_video_tokens = 768;
  } else {
    out.norm.mean = kClipMean;
    out.norm.std = kClipStd;
    out.shortest_edge = 128 * 28 * 28;
    out.longest_edge = 28 * 28 * 768;
    out.max_video_tokens = 128000;
  }
  return out;
}

void read_video(const Json& j, VideoProcessorConfig& out) {
  read_common(j, out);
  out.do_sample_frames = j.get_bool("do_sample_frames", out.do_sample_frames);
  if (const Json* n = j.get("num_frames")) {
    out.sampling.num_frames = n->as_int("num_frames");
    out.sampling.fps.reset();
  } else if (const Json* fps = j.find("fps")) {
    out.sampling.fps.reset();  // an explicit null means no rate
    if (!fps->is_null()) out.sampling.fps = fps->as_double("fps");
  }
  out.sampling.min_frames = j.get_int("min_frames", out.sampling.min_frames);
  out.sampling.max_frames = j.get_int("max_frames", out.sampling.max_frames);
  out.sampling.temporal_patch_size = out.layout.temporal_patch_size;
  out.cap_pixels_per_frame = j.get_bool("cap_pixels_per_frame", false);
  out.max_video_tokens = j.get_double("max_video_tokens", out.max_video_tokens);
}

// transformers' cap_pixels_per_frame: qwen-vl-utils' rule in whole pixels.
double capped(const VideoProcessorConfig& c, double shortest, double longest, int64_t frames) {
  const double n = static_cast<double>(frames), area = static_cast<double>(c.layout.factor() * c.layout.factor());
  const double floor = std::trunc(shortest * 1.05);
  if (c.clip_budget) return std::max(std::min(c.max_video_tokens * area, std::floor(longest / n)), floor) * n;
  const double total = std::trunc(c.max_video_tokens * area * 0.9);
  return std::max(std::min(longest, std::floor(total * static_cast<double>(c.layout.temporal_patch_size) / n)), floor);
}

std::optional<Json> read_if_there(const std::string& path) {
  if (!is_file(path)) return std::nullopt;
  return Json::read_file(path);
}

QwenGeneration detect(const std::string& dir, const Json* nested, const Json& image, const Json* video) {
  std::vector<std::string> names;
  if (auto config = read_if_there(dir + "/config.json")) names.push_back(config->get_string("model_type", ""));
  for (const Json* j : {nested, video, &image}) {
    if (!j) continue;
    for (const char* key : {"processor_class", "video_processor_type"}) names.push_back(j->get_string(key, ""));
  }
  for (const std::string& name : names) {
    if (auto g = qwen_generation(name)) return *g;
  }
  throw Error(ErrorKind::unsupported, dir + ": no Qwen-VL processor (by model_type and processor_class)");
}

}  // namespace

std::optional<QwenGeneration> qwen_generation(std::string_view name) {
  const auto has = [&](std::string_view prefix) { return name.starts_with(prefix); };
  if (has("qwen3_vl") || has("Qwen3VL")) return QwenGeneration::qwen3;
  if (has("qwen2_5_vl") || has("Qwen2_5_VL")) return QwenGeneration::qwen2_5;
  if (has("qwen2_vl") || has("Qwen2VL")) return QwenGeneration::qwen2;
  return std::nullopt;
}

QwenProcessor QwenProcessor::from_json(QwenGeneration generation, const Json& image_json, const Json* video_json) {
  QwenProcessor out;
  out.generation = generation;
  out.image = image_defaults();
  with_context("preprocessor_config.json", [&] { read_common(image_json, out.image); });
  const Json& video = video_json ? *video_json : image_json;
  const std::string type = video.get_string("video_processor_type", "");
  out.video = video_defaults(type.empty() ? generation == QwenGeneration::qwen3 : type.starts_with("Qwen3VL"));
  with_context(video_json ? "video_preprocessor_config.json" : "preprocessor_config.json", [&] { read_video(video, out.video); });
  return out;
}

QwenProcessor QwenProcessor::load(const std::string& dir, std::optional<QwenGeneration> generation) {
  const auto nested = read_if_there(dir + "/processor_config.json");
  const Json* image = nested ? nested->get("image_processor") : nullptr;
  const Json* video = nested ? nested->get("video_processor") : nullptr;
  const auto image_file = image ? std::nullopt : read_if_there(dir + "/preprocessor_config.json");
  const auto video_file = video ? std::nullopt : read_if_there(dir + "/video_preprocessor_config.json");
  if (!image && image_file) image = &*image_file;
  if (!video && video_file) video = &*video_file;
  if (!image) throw Error(ErrorKind::not_found, dir + ": no preprocessor_config.json");
  if (!generation) generation = detect(dir, nested ? &*nested : nullptr, *image, video);
  return with_context(dir, [&] { return from_json(*generation, *image, video); });
}

ImageSize QwenProcessor::image_size(int64_t height, int64_t width, const PixelOverride& o) const {
  const int64_t factor = image.layout.factor();
  if (o.resized) return smart_resize(ResizeRule::util, o.resized->height, o.resized->width, factor, {}, {});
  const double max = o.max_pixels.value_or(image.longest_edge);
  double min = o.min_pixels.value_or(image.shortest_edge);
  if (o.max_pixels && !o.min_pixels) min = std::min(min, max);
  return smart_resize(ResizeRule::hf, height, width, factor, min, max);
}

ImageSize QwenProcessor::video_size(int64_t frames, int64_t height, int64_t width, const PixelOverride& o) const {
  const int64_t factor = video.layout.factor(), tp = video.layout.temporal_patch_size;
  if (o.resized) return smart_resize(ResizeRule::util, o.resized->height, o.resized->width, factor, {}, {});
  const int64_t n = std::max(frames, tp);  // a single frame is shown for a whole temporal patch
  const double per_item = video.clip_budget ? static_cast<double>(n) : 1;
  double min = o.min_pixels ? *o.min_pixels * per_item : video.shortest_edge;
  double max = o.max_pixels ? *o.max_pixels * per_item : video.longest_edge;
  if (o.total_pixels) max = std::min(max, video.clip_budget ? *o.total_pixels : *o.total_pixels / static_cast<double>(n) * static_cast<double>(tp));
  if ((o.max_pixels || o.total_pixels) && !o.min_pixels) min = std::min(min, max);
  if (video.cap_pixels_per_frame) max = capped(video, min, max, n);
  return video.clip_budget ? smart_resize_clip(n, height, width, tp, factor, min, max) : smart_resize(ResizeRule::hf, height, width, factor, min, max);
}

std::vector<int64_t> QwenProcessor::sample(const FrameRequest& request, int64_t frames, double video_fps) const {
  SampleRule rule = video.sampling;
  const bool asked = request.fps || request.nframes;
  if (!asked && !video.do_sample_frames) rule.fps.reset(), rule.num_frames.reset();
  if (asked) {
    rule.fps = request.fps;
    rule.num_frames.reset();
    if (request.nframes) rule.num_frames = static_cast<int64_t>(*request.nframes);
  }
  if (request.min_frames) rule.min_frames = static_cast<int64_t>(*request.min_frames);
  if (request.max_frames) rule.max_frames = static_cast<int64_t>(*request.max_frames);
  const bool all = !rule.fps && !rule.num_frames && !video.do_sample_frames;
  return video.clip_budget && !all ? sample_qwen3(rule, frames, video_fps) : sample_qwen2(rule, frames, video_fps);
}

Patches QwenProcessor::image_patches(const at::Tensor& picture, const PixelOverride& o) const {
  const at::Tensor sized = image.do_resize ? resize_u8(picture, image_size(picture.size(0), picture.size(1), o), image.resample) : picture;
  return patchify(sized, image.layout, image.norm);
}

Patches QwenProcessor::video_patches(const at::Tensor& frames, const PixelOverride& o) const {
  const at::Tensor sized =
      video.do_resize ? resize_u8(frames, video_size(frames.size(0), frames.size(1), frames.size(2), o), video.resample) : frames;
  return patchify(sized, video.layout, video.norm);
}

ProcessedImages QwenProcessor::process_images(const std::vector<at::Tensor>& images) const {
  std::vector<Patches> parts;
  for (const at::Tensor& one : images) parts.push_back(image_patches(one));
  return concatenate(parts);
}

ProcessedImages concatenate(const std::vector<Patches>& parts) {
  ProcessedImages out;
  std::vector<at::Tensor> values;
  for (const Patches& p : parts) {
    values.push_back(p.values);
    out.grid_thw.push_back(p.grid_thw);
  }
  if (!values.empty()) out.pixel_values = values.size() == 1 ? values[0] : at::cat(values);
  return out;
}

}  // namespace statera
