// bmp: uncompressed Windows bitmaps (1, 4, 8, 24 and 32 bits a pixel), for which libvips has no loader of its own. No RLE, no bit fields
// other than the usual ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "image/decode.h"

namespace statera {

// u8 [H,W,3]; the fourth byte of 32-bit pixels is ignored, as Pillow does without a mask for it.
at::Tensor decode_bmp(std::string_view bytes, const DecodeOptions& options);

}  // namespace statera
