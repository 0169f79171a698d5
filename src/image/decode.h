// decode: bytes of a picture to RGB u8, as Pillow would give it (the reference of both processors), through libvips. JPEG, PNG, GIF
// (first frame), WebP (first frame), TIFF and BMP. No colour management, as there. No resizing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace statera {

enum class AlphaMode {
  drop,        // transformers: the colour channels as stored
  white_rgba,  // qwen-vl-utils: pictures Pillow opens as RGBA go over white; palettes and 8-bit grey+alpha drop their alpha
};

struct DecodeOptions {
  AlphaMode alpha = AlphaMode::drop;
  bool apply_exif = true;               // turn and mirror as the EXIF orientation says
  int64_t max_pixels = 178'956'970;     // width x height of the header; above it nothing is decoded (Error bad_file)
};

// u8 [H,W,3]. 16-bit grey saturates at 255 (Pillow's conversion of mode I;16); other 16-bit pictures keep the high byte. CMYK is
// (255 - k)(255 - c)/255. `source` names the picture in errors. Errors: bad_file for what is empty, truncated, damaged, too
// large or no picture.
at::Tensor decode_image(std::string_view bytes, const DecodeOptions& options, std::string_view source);

}  // namespace statera
