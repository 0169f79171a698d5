// resize: see the header.
#include "image/resize.h"

#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <array>

#include "base/error.h"

namespace statera {
namespace {

at::Tensor upsample(const at::Tensor& input, ImageSize size, Resample resample) {
  const std::array<int64_t, 2> out = {size.height, size.width};
  return resample == Resample::bicubic ? at::_upsample_bicubic2d_aa(input, out, /*align_corners=*/false, c10::nullopt, c10::nullopt)
                                       : at::_upsample_bilinear2d_aa(input, out, /*align_corners=*/false, c10::nullopt, c10::nullopt);
}

// One frame at a time: the float way needs 12 bytes a pixel, and a clip may have hundreds of frames.
template <class F>
at::Tensor each_frame(const at::Tensor& frames, ImageSize size, F resize_one) {
  check(frames.scalar_type() == at::kByte && (frames.dim() == 3 || frames.dim() == 4) && frames.size(-1) == 3, "resize: u8 [.., H, W, 3]");
  check(size.height > 0 && size.width > 0, "resize: empty size");
  at::Tensor source = frames.contiguous();
  if (source.size(-3) == size.height && source.size(-2) == size.width) return source;
  c10::InferenceMode guard(false);
  if (source.dim() == 3) return resize_one(source.unsqueeze(0)).squeeze(0);
  at::Tensor out = at::empty({source.size(0), size.height, size.width, 3}, source.options());
  for (int64_t t = 0; t < source.size(0); ++t) out.narrow(0, t, 1).copy_(resize_one(source.narrow(0, t, 1)));
  return out;
}

}  // namespace

at::Tensor resize_u8(const at::Tensor& frames, ImageSize size, Resample resample) {
  return each_frame(frames, size, [&](const at::Tensor& one_1HWC) {
    return upsample(one_1HWC.permute({0, 3, 1, 2}), size, resample).permute({0, 2, 3, 1}).contiguous();
  });
}

at::Tensor resize_like_pillow(const at::Tensor& frames, ImageSize size, Resample resample) {
  const int64_t height = frames.size(-3), width = frames.size(-2);
  const bool vertical_first = size.height < height && height - size.height > 2 * (width - size.width);
  return vertical_first ? resize_u8(resize_u8(frames, {size.height, width}, resample), size, resample) : resize_u8(frames, size, resample);
}

at::Tensor resize_through_float(const at::Tensor& frames, ImageSize size, Resample resample) {
  return each_frame(frames, size, [&](const at::Tensor& one_1HWC) {
    at::Tensor wide = upsample(one_1HWC.permute({0, 3, 1, 2}).contiguous().to(at::kFloat), size, resample);
    return wide.clamp(0, 255).round().to(at::kByte).permute({0, 2, 3, 1}).contiguous();
  });
}

}  // namespace statera
