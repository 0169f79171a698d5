// frames: see the header. torch's own arange and linspace are used where the reference uses them: their float32 rounding is part of
// the result.
#include "image/frames.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linspace.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "image/format.h"
#include "image/smart_resize.h"

namespace statera {
namespace {

constexpr int64_t kFrameFactor = 2;
constexpr double kDefaultFps = 2.0, kMinFrames = 4, kMaxFrames = 768;

std::vector<int64_t> to_vector(const at::Tensor& indices) {
  const at::Tensor whole = indices.to(at::kLong).contiguous();
  const int64_t* data = whole.const_data_ptr<int64_t>();
  return {data, data + whole.numel()};
}

// numpy's linspace: start + i * step in double, the last value pinned.
std::vector<int64_t> linspace_indices_f64(int64_t last, int64_t n) {
  std::vector<int64_t> out(static_cast<size_t>(n));
  const double step = n > 1 ? static_cast<double>(last) / static_cast<double>(n - 1) : 0;
  for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = static_cast<int64_t>(std::nearbyint(static_cast<double>(i) * step));
  if (n > 1) out.back() = last;
  return out;
}

void check_rule(const SampleRule& rule, int64_t frames, double video_fps) {
  if (rule.fps && rule.num_frames) throw Error(ErrorKind::usage, "fps and num_frames exclude each other");
  if ((rule.fps && *rule.fps <= 0) || (rule.num_frames && *rule.num_frames < 1)) throw Error(ErrorKind::usage, "fps and num_frames must be positive");
  check(frames > 0 && video_fps > 0, "sampling an empty clip");
}

}  // namespace

int64_t smart_nframes(const FrameRequest& r, int64_t frames, double video_fps) {
  if (r.fps && r.nframes) throw Error(ErrorKind::usage, "fps and nframes exclude each other");
  const double total = static_cast<double>(frames);
  int64_t n = 0;
  if (r.nframes) {
    n = round_by_factor(*r.nframes, kFrameFactor);
  } else {
    const double low = static_cast<double>(ceil_by_factor(r.min_frames.value_or(kMinFrames), kFrameFactor));
    const double high = static_cast<double>(floor_by_factor(r.max_frames.value_or(std::min(kMaxFrames, total)), kFrameFactor));
    const double wanted = total / video_fps * r.fps.value_or(kDefaultFps);
    n = floor_by_factor(std::min(std::min(std::max(wanted, low), high), total), kFrameFactor);
  }
  if (n < kFrameFactor || n > frames) {
    throw Error(ErrorKind::usage, fmt::format("{} frames would be taken of a clip of {}; at least {} and no more than it has are needed", n, frames, kFrameFactor));
  }
  return n;
}

FrameRange trim_range(const FrameRequest& r, int64_t frames, double video_fps) {
  if (frames <= 0) throw Error(ErrorKind::bad_file, "no frames");
  if (!(video_fps > 0) || !std::isfinite(video_fps)) throw Error(ErrorKind::bad_file, "no frame rate");
  if (!r.video_start && !r.video_end) return {0, frames - 1, frames};
  const double duration = static_cast<double>(frames) / video_fps;
  FrameRange out{0, frames - 1, 0};
  if (r.video_start) out.start = static_cast<int64_t>(std::ceil(std::max(0.0, std::min(*r.video_start, duration)) * video_fps));
  if (r.video_end) {
    out.end = std::min(static_cast<int64_t>(std::floor(std::max(0.0, std::min(*r.video_end, duration)) * video_fps)), frames - 1);
  }
  if (out.start >= out.end) {
    throw Error(ErrorKind::usage, fmt::format("video_start to video_end leaves frames {} to {} of a clip of {:.2f} s ({} frames)", out.start, out.end, duration, frames));
  }
  out.count = out.end - out.start + 1;
  return out;
}

std::vector<int64_t> linspace_indices_f32(int64_t start, int64_t end, int64_t n) {
  return to_vector(at::linspace(static_cast<double>(start), static_cast<double>(end), n, at::kFloat).round());
}

std::vector<int64_t> sample_qwen2(const SampleRule& rule, int64_t frames, double video_fps) {
  check_rule(rule, frames, video_fps);
  const int64_t tp = rule.temporal_patch_size;
  const double total = static_cast<double>(frames);
  int64_t n = frames;
  if (rule.num_frames) {
    n = round_by_factor(static_cast<double>(*rule.num_frames), tp);
  } else if (rule.fps) {
    const double high = static_cast<double>(floor_by_factor(std::min(static_cast<double>(rule.max_frames), total), tp));
    const double wanted = total / video_fps * *rule.fps;
    n = floor_by_factor(std::min(std::min(std::max(wanted, static_cast<double>(rule.min_frames)), high), total), tp);
  }
  if (n < 1 && frames < tp) n = frames;  // differs: the reference divides by zero; a clip shorter than a temporal patch is kept whole
  if (n > frames || n < 1) throw Error(ErrorKind::usage, fmt::format("{} frames asked of a clip of {}", n, frames));
  if (n == frames) return linspace_indices_f64(frames - 1, frames);
  return to_vector(at::arange(0.0, total, total / static_cast<double>(n), at::kFloat).to(at::kInt));
}

std::vector<int64_t> sample_qwen3(const SampleRule& rule, int64_t frames, double video_fps) {
  check_rule(rule, frames, video_fps);
  int64_t n = 0;
  if (rule.num_frames) {
    n = *rule.num_frames;
  } else if (rule.fps) {
    n = static_cast<int64_t>(static_cast<double>(frames) / video_fps * *rule.fps);
    n = std::min({std::max(n, rule.min_frames), rule.max_frames, frames});
  } else {
    n = std::min(std::max(frames, rule.min_frames), rule.max_frames);
  }
  if (n < 1) throw Error(ErrorKind::usage, "max_frames leaves no frame");
  return linspace_indices_f64(frames - 1, n);
}

FrameBudget frame_budget(int64_t n, int64_t factor, std::optional<double> min_pixels, std::optional<double> max_pixels,
                         std::optional<double> total_pixels, int64_t model_seq_len) {
  const double area = static_cast<double>(factor * factor);
  FrameBudget out;
  out.min_pixels = min_pixels.value_or(128 * area);
  if (!min_pixels && max_pixels && *max_pixels < out.min_pixels) out.min_pixels = *max_pixels;
  const double total = total_pixels.value_or(static_cast<double>(model_seq_len * factor * factor) * 0.9);
  const double cap = std::max(std::min(768 * area, total / static_cast<double>(n) * kFrameFactor), std::trunc(out.min_pixels * 1.05));
  out.max_pixels = std::min(max_pixels.value_or(cap), cap);
  return out;
}

int64_t model_seq_len_from_environment() {
  const char* text = std::getenv("MODEL_SEQ_LEN");
  if (!text) return 128000;
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= 1) || value > 1e15) {
    throw Error(ErrorKind::usage, fmt::format("MODEL_SEQ_LEN=\"{}\": expected a positive number", text));
  }
  return static_cast<int64_t>(value);
}

std::vector<double> patch_timestamps(const std::vector<int64_t>& indices, double fps, int64_t temporal_patch_size) {
  check(!indices.empty() && fps > 0 && temporal_patch_size > 0, "patch_timestamps");
  const size_t tp = static_cast<size_t>(temporal_patch_size), last = indices.size() - 1;
  std::vector<double> out;
  for (size_t first = 0; first <= last; first += tp) {
    const double a = static_cast<double>(indices[first]) / fps, b = static_cast<double>(indices[std::min(first + tp - 1, last)]) / fps;
    out.push_back((a + b) / 2);
  }
  return out;
}

}  // namespace statera
