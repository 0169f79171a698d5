// smart_resize: the size a Qwen vision tower sees for an image or a clip, in the three published variants. Only arithmetic:
// IEEE doubles in the reference's order, half rounds to even, so the integers are the reference's in every case.
#pragma once

#include <cstdint>
#include <optional>

namespace statera {

struct ImageSize {
  int64_t height = 0, width = 0;
  bool operator==(const ImageSize&) const = default;
};

// Which reference's guards apply where a side is small.
enum class ResizeRule {
  util,  // qwen-vl-utils: rounded sides at least factor; the shrunk ones are not clamped, so a side can become 0
  hf,    // transformers images and Qwen2-VL videos: rounded sides may be 0 (then the image grows), shrunk ones at least factor
};

// Longest over shortest side above this is an error.
inline constexpr double kMaxAspectRatio = 200;

// n rounded to a multiple of factor: half to even, down, up (of the double quotient).
int64_t round_by_factor(double n, int64_t factor);
int64_t floor_by_factor(double n, int64_t factor);
int64_t ceil_by_factor(double n, int64_t factor);

// Height and width as multiples of factor with a product near [min_pixels, max_pixels] and nearly the same aspect.
// Defaults of the util rule: 4 factor^2 and 16384 factor^2. Errors: usage when max_pixels < min_pixels under the util rule
// (the hf rule has no such check); unsupported when a side is < 1 or the ratio exceeds kMaxAspectRatio.
ImageSize smart_resize(ResizeRule rule, int64_t height, int64_t width, int64_t factor, std::optional<double> min_pixels,
                       std::optional<double> max_pixels);

// Qwen3-VL's video variant: the budget covers frames x height x width. frames < temporal_factor is an error (unsupported);
// a side below factor first scales both up, cutting to whole pixels.
ImageSize smart_resize_clip(int64_t frames, int64_t height, int64_t width, int64_t temporal_factor, int64_t factor,
                            double min_pixels, double max_pixels);

}  // namespace statera
