// resize: antialiased resampling of u8 frames through ATen, in the two ways the reference does it. The u8 way (transformers'
// default backend, and within one step per axis of Pillow) rounds to u8 between the two passes; the float way
// (qwen-vl-utils on videos) does not.
#pragma once

#include <ATen/core/Tensor.h>

#include "image/smart_resize.h"

namespace statera {

enum class Resample { bicubic, bilinear };

// frames: u8 [H,W,3] or [T,H,W,3], channels last. Result: u8 of the same rank with the new size. A frame that already has the
// size is returned as it is.
at::Tensor resize_u8(const at::Tensor& frames, ImageSize size, Resample resample = Resample::bicubic);
// The same with the passes in the order Pillow 13 takes them (observed: vertical first when the height shrinks by more than twice
// what the width does), so that also noise agrees to 2 steps; older Pillow always goes horizontal first.
at::Tensor resize_like_pillow(const at::Tensor& frames, ImageSize size, Resample resample = Resample::bicubic);
// The same through float32 with one rounding (half to even) and clipping at the end.
at::Tensor resize_through_float(const at::Tensor& frames, ImageSize size, Resample resample = Resample::bicubic);

}  // namespace statera
