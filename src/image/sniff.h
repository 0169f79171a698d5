// sniff: what the first bytes of a picture say that libvips does not tell: the container, PNG's colour type, whether a JPEG carries
// Adobe's marker, GIF's transparency. Never decodes; any bytes are safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace statera {

enum class ImageFormat { unknown, jpeg, png, gif, webp, tiff, bmp };
ImageFormat sniff_format(std::string_view bytes);
std::string_view to_string(ImageFormat format);

// PNG's IHDR colour type (0 grey, 2 RGB, 3 palette, 4 grey+alpha, 6 RGBA), -1 when there is no IHDR.
int png_colour_type(std::string_view bytes);
// Whether the JPEG has an APP14 "Adobe" segment before its scan.
bool jpeg_has_adobe(std::string_view bytes);
// The GIF without the transparency of its first frame, so that those pixels keep their palette colour.
std::string gif_opaque(std::string_view bytes);

}  // namespace statera
