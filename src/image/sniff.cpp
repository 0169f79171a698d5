// sniff: see the header.
#include "image/sniff.h"

namespace statera {
namespace {

uint8_t at(std::string_view b, size_t i) { return i < b.size() ? static_cast<uint8_t>(b[i]) : 0; }

// Bytes of a GIF colour table whose flags byte is `flags`.
size_t colour_table_bytes(uint8_t flags) { return flags & 0x80 ? size_t{3} << ((flags & 7) + 1) : 0; }

}  // namespace

ImageFormat sniff_format(std::string_view b) {
  using namespace std::string_view_literals;
  if (b.starts_with("\xFF\xD8\xFF")) return ImageFormat::jpeg;
  if (b.starts_with("\x89PNG\r\n\x1A\n")) return ImageFormat::png;
  if (b.starts_with("GIF87a") || b.starts_with("GIF89a")) return ImageFormat::gif;
  if (b.starts_with("RIFF") && b.size() >= 12 && b.substr(8, 4) == "WEBP") return ImageFormat::webp;
  if (b.starts_with("II*\0"sv) || b.starts_with("MM\0*"sv) || b.starts_with("II+\0"sv) || b.starts_with("MM\0+"sv)) return ImageFormat::tiff;
  if (b.starts_with("BM") && b.size() >= 26) return ImageFormat::bmp;
  return ImageFormat::unknown;
}

std::string_view to_string(ImageFormat format) {
  switch (format) {
    case ImageFormat::jpeg: return "JPEG";
    case ImageFormat::png: return "PNG";
    case ImageFormat::gif: return "GIF";
    case ImageFormat::webp: return "WebP";
    case ImageFormat::tiff: return "TIFF";
    case ImageFormat::bmp: return "BMP";
    case ImageFormat::unknown: break;
  }
  return "unknown";
}

int png_colour_type(std::string_view b) {
  if (sniff_format(b) != ImageFormat::png || b.size() < 26 || b.substr(12, 4) != "IHDR") return -1;
  return at(b, 25);
}

bool jpeg_has_adobe(std::string_view b) {
  for (size_t i = 2; i + 4 <= b.size();) {
    if (at(b, i) != 0xFF) return false;
    const uint8_t marker = at(b, i + 1);
    if (marker == 0xFF) {
      ++i;  // fill byte
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) return false;
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
      i += 2;  // without a length
      continue;
    }
    if (marker == 0xEE && b.substr(i + 4).starts_with("Adobe")) return true;
    const size_t length = (size_t{at(b, i + 2)} << 8) | at(b, i + 3);
    if (length < 2) return false;
    i += 2 + length;
  }
  return false;
}

std::string gif_opaque(std::string_view b) {
  std::string out(b);
  if (b.size() < 13) return out;
  size_t i = 13 + colour_table_bytes(at(b, 10));
  while (i + 3 < b.size() && at(b, i) == 0x21) {  // extensions before the first image
    if (at(b, i + 1) == 0xF9 && at(b, i + 2) >= 4 && i + 3 < out.size()) out[i + 3] = static_cast<char>(out[i + 3] & ~1);
    i += 2;
    while (i < b.size() && at(b, i) != 0) i += 1 + size_t{at(b, i)};
    ++i;
  }
  return out;
}

}  // namespace statera
