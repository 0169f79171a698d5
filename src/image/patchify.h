// patchify: u8 frames to the rows of pixel_values: normalised float patches, block-major so that merge^2 consecutive rows are one
// token. The inverse of nothing: it only lays out.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace statera {

// x -> (x * rescale - mean) / std per channel, each step optional; fused in float32 as transformers does:
// (x - mean / rescale) / (std / rescale).
struct Normalization {
  bool do_rescale = true, do_normalize = true;
  double rescale_factor = 1.0 / 255;
  std::array<double, 3> mean{}, std{1, 1, 1};
  // The 256 values a channel can take.
  std::array<float, 256> table(int channel) const;
};

struct PatchLayout {
  int64_t patch_size = 14, temporal_patch_size = 2, merge_size = 2;
  int64_t factor() const { return patch_size * merge_size; }
};

struct Patches {
  at::Tensor values;                  // f32 [t*h*w, 3 * temporal * patch * patch], column order channel, time, y, x
  std::array<int64_t, 3> grid_thw{};  // in patches
};

// frames: u8 [T,H,W,3] (or [H,W,3]: a still, repeated over the temporal patch). H and W must be multiples of patch * merge
// (Error mismatch). The last frame is repeated up to a multiple of the temporal patch.
// Row order: t, block row, block column, row in block, column in block.
Patches patchify(const at::Tensor& frames, const PatchLayout& layout, const Normalization& norm);

}  // namespace statera
