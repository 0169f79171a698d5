// See qwen_vl.h.
#include "models/parts/qwen_vl.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace statera {
namespace {

struct Segment {
  Grid grid;
  bool video;
  double seconds;
};

// Media segments in the order in which a sequence's placeholders use them. Qwen3-VL videos count one segment per frame.
class SegmentQueue {
 public:
  SegmentQueue(const ModelInputs& inputs, VlGeneration generation) {
    for (const Grid& g : inputs.image_grid_thw) images_.push_back({g, false, 0});
    for (size_t i = 0; i < inputs.video_grid_thw.size(); ++i) {
      double seconds = i < inputs.second_per_grid_ts.size() ? inputs.second_per_grid_ts[i] : 1.0;
      const Grid& g = inputs.video_grid_thw[i];
      if (generation == VlGeneration::qwen3) {
        for (int64_t t = 0; t < g[0]; ++t) videos_.push_back({{1, g[1], g[2]}, true, seconds});
      } else {
        videos_.push_back({g, true, seconds});
      }
    }
  }
  const Segment& next(bool video) {
    auto& list = video ? videos_ : images_;
    auto& at = video ? video_at_ : image_at_;
    if (at >= list.size()) {
      throw Error(ErrorKind::mismatch, std::string("the prompt holds more ") + (video ? "video" : "image") + " placeholders than there are " + (video ? "videos" : "images"));
    }
    return list[at++];
  }
  void check_used() const {
    if (image_at_ != images_.size() || video_at_ != videos_.size()) {
      throw Error(ErrorKind::mismatch, "the prompt has no placeholder for " + std::to_string(images_.size() - image_at_ + videos_.size() - video_at_) + " of its images or video frames");
    }
  }

 private:
  std::vector<Segment> images_, videos_;
  size_t image_at_ = 0, video_at_ = 0;
};

}  // namespace

std::pair<at::Tensor, std::vector<int64_t>> mrope_positions(const ModelInputs& inputs, const QwenVlIds& ids, VlGeneration generation, int64_t merge,
                                                            double tokens_per_second) {
  SegmentQueue queue(inputs, generation);
  at::Tensor ids_T = inputs.input_ids.contiguous();
  const int64_t* id = ids_T.const_data_ptr<int64_t>();
  std::vector<int64_t> rows[3], next_of;
  for (size_t s = 0; s + 1 < inputs.bounds.size(); ++s) {
    int64_t next = 0;
    for (int64_t i = inputs.bounds[s]; i < inputs.bounds[s + 1];) {
      if (id[i] != ids.image && id[i] != ids.video) {
        for (auto& r : rows) r.push_back(next);
        ++next;
        ++i;
        continue;
      }
      const Segment& seg = queue.next(id[i] == ids.video);
      const int64_t T = seg.grid[0], H = seg.grid[1] / merge, W = seg.grid[2] / merge, count = T * H * W;
      for (int64_t j = 0; j < count; ++j) {
        if (i + j >= inputs.bounds[s + 1] || id[i + j] != id[i]) {
          throw Error(ErrorKind::mismatch, fmt::format("a run of {} placeholders stands where the grid ({}, {}, {}) gives {}", j, seg.grid[0], seg.grid[1], seg.grid[2], count));
        }
      }
      int64_t largest = next;
      for (int64_t t = 0; t < T; ++t) {
        int64_t tau = t;
        if (generation == VlGeneration::qwen2_5) {
          tau = seg.video ? static_cast<int64_t>(static_cast<double>(t) * seg.seconds * tokens_per_second) : 0;
        }
        for (int64_t y = 0; y < H; ++y) {
          for (int64_t x = 0; x < W; ++x) {
            rows[0].push_back(next + tau);
            rows[1].push_back(next + y);
            rows[2].push_back(next + x);
          }
        }
        largest = std::max({largest, next + tau, next + H - 1, next + W - 1});
      }
      next = largest + 1;
      i += count;
    }
    next_of.push_back(next);
  }
  queue.check_used();
  std::vector<at::Tensor> parts;
  for (auto& r : rows) parts.push_back(at::tensor(r, at::kLong).unsqueeze(0));
  return {at::cat(parts, 0), next_of};
}

std::vector<int64_t> int_list(const Json& config, const char* key, std::vector<int64_t> otherwise) {
  const Json* list = config.get(key);
  if (!list) return otherwise;
  std::vector<int64_t> out;
  for (const Json& v : list->as_array(key)) out.push_back(v.as_int(key));
  return out;
}

QwenVisionConfig read_vision(const Json& vision, int64_t default_depth, int64_t default_patch, const char* default_act) {
  QwenVisionConfig c;
  c.depth = vision.get_int("depth", default_depth);
  c.num_heads = vision.get_int("num_heads", 16);
  c.in_channels = vision.get_int("in_channels", vision.get_int("in_chans", 3));
  c.patch_size = vision.get_int("patch_size", default_patch);
  c.temporal_patch_size = vision.get_int("temporal_patch_size", 2);
  c.spatial_merge_size = vision.get_int("spatial_merge_size", 2);
  c.act = parse_activation(vision.get_string("hidden_act", default_act));
  return c;
}

QwenVisionConfig qwen3_tower(const Json& config) {
  const Json& v = vision_part(config);
  QwenVisionConfig c = read_vision(v, 27, 16, "gelu_pytorch_tanh");
  c.width = v.get_int("hidden_size", 1152);
  c.intermediate_size = v.get_int("intermediate_size", 4304);
  c.out_hidden_size = v.get_int("out_hidden_size", 3584);
  c.patch_bias = true;
  c.qwen3_names = true;
  c.num_position_embeddings = v.get_int("num_position_embeddings", 2304);
  c.deepstack_visual_indexes = int_list(v, "deepstack_visual_indexes", {8, 16, 24});
  return c;
}

void read_top_level_tie(const Json& config, DecoderConfig& decoder) {
  if (const Json* tie = config.get("tie_word_embeddings")) decoder.tie_word_embeddings = tie->as_bool("config.json: tie_word_embeddings");
}

const Json& vision_part(const Json& config) { return config.at("vision_config", "config.json"); }

QwenVl::QwenVl(const Json& config_json, WeightSource& source, VlGeneration generation, const DecoderConfig& decoder, const QwenVisionConfig& tower)
    : generation_(generation) {
  config = config_json;
  ids_.image = config.get_int("image_token_id", ids_.image);
  ids_.video = config.get_int("video_token_id", ids_.video);
  ids_.vision_start = config.get_int("vision_start_token_id", ids_.vision_start);
  ids_.vision_end = config.get_int("vision_end_token_id", ids_.vision_end);
  if (generation == VlGeneration::qwen2_5) tokens_per_second_ = vision_part(config).get_double("tokens_per_second", 4);
  if (tower.out_hidden_size != decoder.hidden_size) {
    throw Error(ErrorKind::bad_file, fmt::format("config.json: the tower gives rows of {}, the language model reads {}", tower.out_hidden_size, decoder.hidden_size));
  }
  Scope top(source, params);
  tower_ = std::make_unique<QwenVision>(tower, top / "model" / "visual", &dtype);
  decoder_ = std::make_unique<Decoder>(decoder, top / "model" / "language_model", top, &dtype);
}

std::pair<at::Tensor, std::vector<int64_t>> QwenVl::positions(const ModelInputs& inputs) const {
  return mrope_positions(inputs, ids_, generation_, tower_->config().spatial_merge_size, tokens_per_second_);
}

at::Tensor QwenVl::token_kinds(const at::Tensor& input_ids) const { return ((input_ids == ids_.image) | (input_ids == ids_.video)).to(at::kChar); }

std::string QwenVl::expand_placeholders(const std::string& prompt, const MediaSizes& media) const {
  static const std::string image = "<|image_pad|>", video = "<|video_pad|>", start = "<|vision_start|>", end = "<|vision_end|>";
  const int64_t unit = tower_->config().spatial_merge_size * tower_->config().spatial_merge_size;
  auto repeated = [](const std::string& token, int64_t count) {
    std::string out;
    out.reserve(token.size() * static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) out += token;
    return out;
  };
  std::string out;
  size_t at = 0, images = 0, videos = 0;
  while (true) {
    size_t i = prompt.find(image, at), v = prompt.find(video, at), found = std::min(i, v);
    if (found == prompt.npos) break;
    out.append(prompt, at, found - at);
    at = found + image.size();
    if (found == i) {
      if (images >= media.images.size()) throw Error(ErrorKind::mismatch, "the prompt asks for more images than were given (" + std::to_string(media.images.size()) + ")");
      const Grid& g = media.images[images++];
      out += repeated(image, g[0] * g[1] * g[2] / unit);
      continue;
    }
    if (videos >= media.videos.size()) throw Error(ErrorKind::mismatch, "the prompt asks for more videos than were given (" + std::to_string(media.videos.size()) + ")");
    const Grid& g = media.videos[videos];
    if (generation_ != VlGeneration::qwen3) {
      out += repeated(video, g[0] * g[1] * g[2] / unit);
    } else {
      // The template's own markers around the placeholder are replaced too: each frame pair brings its own.
      bool wrapped = out.ends_with(start) && prompt.compare(at, end.size(), end) == 0;
      if (wrapped) {
        out.resize(out.size() - start.size());
        at += end.size();
      }
      check(videos < media.video_timestamps.size() && media.video_timestamps[videos].size() == static_cast<size_t>(g[0]), "video timestamps");
      for (double seconds : media.video_timestamps[videos]) {
        out += fmt::format("<{:.1f} seconds>", seconds) + start + repeated(video, g[1] * g[2] / unit) + end;
      }
    }
    ++videos;
  }
  out.append(prompt, at, prompt.npos);
  if (images != media.images.size() || videos != media.videos.size()) {
    throw Error(ErrorKind::mismatch, fmt::format("{} images and {} videos were given, the prompt has places for {} and {}", media.images.size(), media.videos.size(), images, videos));
  }
  return out;
}

ResidualEnds QwenVl::residual_ends() const {
  ResidualEnds ends = decoder_->residual_ends();
  ends.writers = tower_->output_layers();
  return ends;
}

VisualFeatures QwenVl::run_tower(const at::Tensor& pixels, const std::vector<Grid>& grids, Tap* tap) const {
  Pass pass;
  pass.tap = tap;
  at::Tensor h = tower_->enter(pixels, grids, pass);
  return tower_->leave(run_blocks(*tower_, h, pass), pass);
}

// Image and video features each come in their own order; they are laid out in the order of the placeholders.
std::optional<VisualFeatures> QwenVl::see(const ModelInputs& inputs, Tap* tap) const {
  const bool images = inputs.pixel_values.defined(), videos = inputs.pixel_values_videos.defined();
  if (!images && !videos) return std::nullopt;
  if (images && !videos) return run_tower(inputs.pixel_values, inputs.image_grid_thw, tap);
  if (videos && !images) return run_tower(inputs.pixel_values_videos, inputs.video_grid_thw, tap);
  VisualFeatures a = run_tower(inputs.pixel_values, inputs.image_grid_thw, tap);
  VisualFeatures b = run_tower(inputs.pixel_values_videos, inputs.video_grid_thw, tap);
  const auto image_rows = (inputs.input_ids == ids_.image).sum().item<int64_t>(), video_rows = (inputs.input_ids == ids_.video).sum().item<int64_t>();
  if (image_rows != a.rows_VH.size(0) || video_rows != b.rows_VH.size(0)) {
    throw Error(ErrorKind::mismatch, fmt::format("the prompt holds {} image and {} video placeholders, the media give {} and {} features", image_rows, video_rows,
                                                 a.rows_VH.size(0), b.rows_VH.size(0)));
  }
  VisualFeatures both{at::cat({a.rows_VH, b.rows_VH}, 0), {}};
  for (size_t j = 0; j < a.deepstack_VH.size(); ++j) both.deepstack_VH.push_back(at::cat({a.deepstack_VH[j], b.deepstack_VH[j]}, 0));
  return arrange(inputs.input_ids, std::move(both));
}

VisualFeatures QwenVl::arrange(const at::Tensor& input_ids, VisualFeatures images_first) const {
  const at::Tensor is_image = (input_ids == ids_.image);
  const at::Tensor visual = at::masked_select(input_ids, is_image | (input_ids == ids_.video));
  const at::Tensor places = at::cat({(visual == ids_.image).nonzero().squeeze(1), (visual == ids_.video).nonzero().squeeze(1)}, 0);
  check(places.size(0) == images_first.rows_VH.size(0), "one feature per placeholder");
  auto placed = [&](at::Tensor& x) { x = at::index_copy(at::zeros_like(x), 0, places, x); };
  placed(images_first.rows_VH);
  for (at::Tensor& x : images_first.deepstack_VH) placed(x);
  return images_first;
}

}  // namespace statera
