// bmp: see the header.
#include "image/bmp.h"

#include <ATen/ops/empty.h>

#include <array>
#include <cstring>

#include "base/error.h"
#include "image/format.h"

namespace statera {
namespace {

uint32_t le32(std::string_view b, size_t i) {
  uint32_t v = 0;
  if (i + 4 <= b.size()) std::memcpy(&v, b.data() + i, 4);
  return v;
}
uint16_t le16(std::string_view b, size_t i) {
  uint16_t v = 0;
  if (i + 2 <= b.size()) std::memcpy(&v, b.data() + i, 2);
  return v;
}

struct Header {
  int64_t width = 0, height = 0, bits = 0, pixels_at = 0, palette_at = 0, stride = 0;
  bool top_down = false;
};

Header read_header(std::string_view b, const DecodeOptions& options) {
  Header h;
  const uint32_t info = le32(b, 14);
  if (info < 40 || 14 + uint64_t{info} > b.size()) throw Error(ErrorKind::unsupported, "BMP with an old or broken header");
  const auto height = static_cast<int32_t>(le32(b, 22));
  h.width = static_cast<int32_t>(le32(b, 18));
  h.height = height < 0 ? -int64_t{height} : height;
  h.top_down = height < 0;
  h.bits = le16(b, 28);
  const uint32_t compression = le32(b, 30);
  const bool plain_masks = compression == 3 && h.bits == 32 && le32(b, 54) == 0xFF0000 && le32(b, 58) == 0xFF00 && le32(b, 62) == 0xFF;
  if (compression != 0 && !plain_masks) throw Error(ErrorKind::unsupported, fmt::format("BMP compression {}", compression));
  if (h.bits != 1 && h.bits != 4 && h.bits != 8 && h.bits != 24 && h.bits != 32) {
    throw Error(ErrorKind::unsupported, fmt::format("BMP with {} bits a pixel", h.bits));
  }
  if (h.width < 1 || h.height < 1) throw Error(ErrorKind::bad_file, "damaged BMP: no pixels");
  if (h.width > options.max_pixels / h.height) {
    throw Error(ErrorKind::bad_file, fmt::format("{}x{} pixels exceed the limit of {}", h.width, h.height, options.max_pixels));
  }
  h.pixels_at = le32(b, 10);
  h.palette_at = 14 + int64_t{info};
  h.stride = (h.width * h.bits + 31) / 32 * 4;
  if (h.pixels_at + h.stride * h.height > static_cast<int64_t>(b.size())) throw Error(ErrorKind::bad_file, "truncated BMP");
  return h;
}

}  // namespace

at::Tensor decode_bmp(std::string_view bytes, const DecodeOptions& options) {
  const Header h = read_header(bytes, options);
  at::Tensor out = at::empty({h.height, h.width, 3}, at::kByte);
  uint8_t* to = out.mutable_data_ptr<uint8_t>();
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  for (int64_t y = 0; y < h.height; ++y) {
    const uint8_t* line = data + h.pixels_at + (h.top_down ? y : h.height - 1 - y) * h.stride;
    for (int64_t x = 0; x < h.width; ++x, to += 3) {
      const uint8_t* bgr = line + x * (h.bits / 8);
      if (h.bits <= 8) {
        const int64_t bit = x * h.bits;
        const int64_t index = (line[bit / 8] >> (8 - h.bits - bit % 8)) & ((1 << h.bits) - 1);
        const int64_t entry = h.palette_at + 4 * index;
        if (entry + 4 > h.pixels_at) throw Error(ErrorKind::bad_file, "damaged BMP: colour outside the palette");
        bgr = data + entry;
      }
      to[0] = bgr[2];
      to[1] = bgr[1];
      to[2] = bgr[0];
    }
  }
  return out;
}

}  // namespace statera
