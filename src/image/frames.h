// frames: which frames of a clip are used and how many pixels each may have: qwen-vl-utils' rules and the two samplers of
// transformers. Arithmetic only; nothing is opened.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace statera {

// What a message item (or the command line) asks for; times in seconds.
struct FrameRequest {
  std::optional<double> fps{}, nframes{}, min_frames{}, max_frames{}, video_start{}, video_end{};
};

// Frames [start, end] of a clip, both included.
struct FrameRange {
  int64_t start = 0, end = 0, count = 0;
  bool operator==(const FrameRange&) const = default;
};

// qwen-vl-utils: the number of frames to take from `frames` at `video_fps`; even. Errors (usage): fps together with nframes, or a
// result outside [2, frames].
int64_t smart_nframes(const FrameRequest& request, int64_t frames, double video_fps);
// The part between video_start and video_end, clamped to the clip: ceil of the start, floor of the end. Error(usage) when no
// two frames remain and a trim was asked for; Error(bad_file) when frames or video_fps is not positive.
FrameRange trim_range(const FrameRequest& request, int64_t frames, double video_fps);
// n indices from start to end, both included: float32 linspace, half to even (qwen-vl-utils).
std::vector<int64_t> linspace_indices_f32(int64_t start, int64_t end, int64_t n);

// transformers' samplers, over a clip of `frames`. `fps` or `num_frames` decides; both together are an error (usage); neither: all
// frames (Qwen2-VL) or frames clamped to [min, max] (Qwen3-VL).
struct SampleRule {
  std::optional<double> fps{};
  std::optional<int64_t> num_frames{};
  int64_t min_frames = 4, max_frames = 768, temporal_patch_size = 2;
};
std::vector<int64_t> sample_qwen2(const SampleRule& rule, int64_t frames, double video_fps);
std::vector<int64_t> sample_qwen3(const SampleRule& rule, int64_t frames, double video_fps);

// Per-frame pixel limits of qwen-vl-utils for a clip of n frames. A max_pixels below the default minimum lowers the minimum
// (differs: the reference fails an assertion there).
struct FrameBudget {
  double min_pixels = 0, max_pixels = 0;
};
FrameBudget frame_budget(int64_t n, int64_t factor, std::optional<double> min_pixels, std::optional<double> max_pixels,
                         std::optional<double> total_pixels, int64_t model_seq_len);
// MODEL_SEQ_LEN of the environment, as int(float(x)); default 128000. Error(usage) when it is no positive number.
int64_t model_seq_len_from_environment();

// Seconds of each temporal patch: the mean of its first and last frame's time; the last index is repeated as needed.
std::vector<double> patch_timestamps(const std::vector<int64_t>& indices, double fps, int64_t temporal_patch_size);

}  // namespace statera
