// smart_resize: see the header. The order of operations is the specification: sqrt((h w) / max), then h / beta, then / factor.
#include "image/smart_resize.h"


#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "image/format.h"

namespace statera {
namespace {

void check_aspect(int64_t height, int64_t width) {
  if (height < 1 || width < 1) {
    throw Error(ErrorKind::unsupported, fmt::format("an image of {}x{} pixels cannot be resized", width, height));
  }
  double ratio = static_cast<double>(std::max(height, width)) / static_cast<double>(std::min(height, width));
  if (ratio > kMaxAspectRatio) {
    throw Error(ErrorKind::unsupported,
                fmt::format("aspect ratio of {}x{} is {:.2f}, at most {:.0f} is allowed", width, height, ratio, kMaxAspectRatio));
  }
}

}  // namespace

// nearbyint under the default rounding mode is half to even.
int64_t round_by_factor(double n, int64_t factor) {
  return static_cast<int64_t>(std::nearbyint(n / static_cast<double>(factor))) * factor;
}
int64_t floor_by_factor(double n, int64_t factor) {
  return static_cast<int64_t>(std::floor(n / static_cast<double>(factor))) * factor;
}
int64_t ceil_by_factor(double n, int64_t factor) {
  return static_cast<int64_t>(std::ceil(n / static_cast<double>(factor))) * factor;
}

ImageSize smart_resize(ResizeRule rule, int64_t height, int64_t width, int64_t factor, std::optional<double> min_pixels,
                       std::optional<double> max_pixels) {
  check(factor > 0, "smart_resize: factor");
  const double area = static_cast<double>(factor) * static_cast<double>(factor);
  const double max = max_pixels.value_or(16384 * area), min = min_pixels.value_or(4 * area);
  if (rule == ResizeRule::util && max < min) {
    throw Error(ErrorKind::usage, fmt::format("max_pixels {} is less than min_pixels {}", max, min));
  }
  check_aspect(height, width);
  const int64_t round_floor = rule == ResizeRule::util ? factor : 0, shrink_floor = rule == ResizeRule::hf ? factor : 0;
  const double h = static_cast<double>(height), w = static_cast<double>(width);
  ImageSize out{std::max(round_floor, round_by_factor(h, factor)), std::max(round_floor, round_by_factor(w, factor))};
  const double product = static_cast<double>(out.height) * static_cast<double>(out.width);
  if (product > max) {
    double beta = std::sqrt((h * w) / max);
    out = {std::max(shrink_floor, floor_by_factor(h / beta, factor)), std::max(shrink_floor, floor_by_factor(w / beta, factor))};
  } else if (product < min) {
    double beta = std::sqrt(min / (h * w));
    out = {ceil_by_factor(h * beta, factor), ceil_by_factor(w * beta, factor)};
  }
  return out;
}

ImageSize smart_resize_clip(int64_t frames, int64_t height, int64_t width, int64_t temporal_factor, int64_t factor,
                            double min_pixels, double max_pixels) {
  check(factor > 0 && temporal_factor > 0, "smart_resize_clip: factor");
  if (frames < temporal_factor) {
    throw Error(ErrorKind::unsupported, fmt::format("a clip of {} frames is too short, {} are needed", frames, temporal_factor));
  }
  if (height >= 1 && width >= 1 && (height < factor || width < factor)) {
    const double f = static_cast<double>(factor);
    double scale = std::max(f / static_cast<double>(height), f / static_cast<double>(width));
    height = static_cast<int64_t>(static_cast<double>(height) * scale);
    width = static_cast<int64_t>(static_cast<double>(width) * scale);
  }
  check_aspect(height, width);
  const double t = static_cast<double>(frames), h = static_cast<double>(height), w = static_cast<double>(width);
  ImageSize out{round_by_factor(h, factor), round_by_factor(w, factor)};
  const double product = static_cast<double>(round_by_factor(t, temporal_factor)) * static_cast<double>(out.height) *
                         static_cast<double>(out.width);
  if (product > max_pixels) {
    double beta = std::sqrt((t * h * w) / max_pixels);
    out = {std::max(factor, floor_by_factor(h / beta, factor)), std::max(factor, floor_by_factor(w / beta, factor))};
  } else if (product < min_pixels) {
    double beta = std::sqrt(min_pixels / (t * h * w));
    out = {ceil_by_factor(h * beta, factor), ceil_by_factor(w * beta, factor)};
  }
  return out;
}

}  // namespace statera
