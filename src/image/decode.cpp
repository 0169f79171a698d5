// decode: the only file that knows libvips. Only its loaders for the formats of sniff.h are reachable, and those marked as
// unfit for untrusted input are blocked. vips keeps its errors in one global buffer; a lock keeps messages with their cause.
#include "image/decode.h"

#include <ATen/ops/empty.h>
#include <vips/vips.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "base/error.h"
#include "base/strings.h"
#include "image/bmp.h"
#include "image/format.h"
#include "image/sniff.h"

namespace statera {
namespace {

struct Unref {
  void operator()(VipsImage* image) const { g_object_unref(image); }
};
using Image = std::unique_ptr<VipsImage, Unref>;

void start_vips() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (VIPS_INIT("statera") != 0) throw Error(ErrorKind::unsupported, "libvips does not start");
    vips_block_untrusted_set(TRUE);
    vips_cache_set_max(0);  // every picture is decoded once
    // Warnings go nowhere: what matters is an error here.
    g_log_set_handler("VIPS", static_cast<GLogLevelFlags>(G_LOG_LEVEL_WARNING | G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO),
                      [](const gchar*, GLogLevelFlags, const gchar*, gpointer) {}, nullptr);
  });
}

std::string take_vips_error() {
  char* text = vips_error_buffer_copy();
  std::string out(trim(text));
  g_free(text);
  std::replace(out.begin(), out.end(), '\n', ';');
  return out.empty() ? "unknown reason" : out;
}

[[noreturn]] void fail(ImageFormat format) {
  throw Error(ErrorKind::bad_file, fmt::format("damaged or truncated {}: {}", to_string(format), take_vips_error()));
}

void check_pixels(int64_t width, int64_t height, const DecodeOptions& options) {
  if (width > options.max_pixels / std::max<int64_t>(height, 1)) {
    throw Error(ErrorKind::bad_file, fmt::format("{}x{} pixels exceed the limit of {}", width, height, options.max_pixels));
  }
}

// Interleaved samples of the whole picture, after turning.
struct Samples {
  int64_t width = 0, height = 0, bands = 0;
  VipsBandFormat format = VIPS_FORMAT_UCHAR;
  VipsInterpretation interpretation = VIPS_INTERPRETATION_sRGB;
  std::unique_ptr<void, decltype(&g_free)> data{nullptr, g_free};
};

Samples read_samples(std::string_view bytes, ImageFormat format, const DecodeOptions& options) {
  static std::mutex lock;
  std::lock_guard held(lock);
  vips_error_clear();
  // Truncation is an error; other complaints of a decoder (extra bytes, odd chunks) are not, as in Pillow.
  Image image(vips_image_new_from_buffer(bytes.data(), bytes.size(), "", "fail_on", VIPS_FAIL_ON_TRUNCATED, nullptr));
  if (!image) fail(format);
  check_pixels(vips_image_get_width(image.get()), vips_image_get_height(image.get()), options);
  if (options.apply_exif) {
    VipsImage* turned = nullptr;
    if (vips_autorot(image.get(), &turned, nullptr) != 0) fail(format);
    image.reset(turned);
  }
  Samples out;
  out.width = vips_image_get_width(image.get());
  out.height = vips_image_get_height(image.get());
  out.bands = vips_image_get_bands(image.get());
  out.format = vips_image_get_format(image.get());
  out.interpretation = vips_image_get_interpretation(image.get());
  size_t size = 0;
  out.data.reset(vips_image_write_to_memory(image.get(), &size));
  if (!out.data) fail(format);
  check(size >= static_cast<size_t>(out.width * out.height * out.bands), "vips: short image");
  return out;
}

// n / 255 as Pillow rounds it.
uint8_t div255(int n) {
  n += 128;
  return static_cast<uint8_t>(((n >> 8) + n) >> 8);
}

// One rounding over the sum of both parts.
uint8_t over_white(int value, int alpha) { return div255(value * alpha + 255 * (255 - alpha)); }

// What remains of the channels once every sample is 8 bits: grey, grey+alpha, RGB, RGBA or CMYK (by band count and the flags).
struct Meaning {
  bool cmyk = false, inverted = false;  // inverted: the CMYK samples as stored are 255 - ink
  bool over_white = false;
};

at::Tensor to_rgb(const uint8_t* in, int64_t width, int64_t height, int64_t bands, Meaning meaning) {
  at::Tensor out = at::empty({height, width, 3}, at::kByte);
  uint8_t* to = out.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < width * height; ++i, in += bands, to += 3) {
    if (bands < 3) {
      to[0] = to[1] = to[2] = meaning.over_white ? over_white(in[0], in[1]) : in[0];
    } else if (meaning.cmyk) {
      const int k = meaning.inverted ? in[3] : 255 - in[3];
      for (int c = 0; c < 3; ++c) to[c] = static_cast<uint8_t>(std::max(0, k - div255((meaning.inverted ? 255 - in[c] : in[c]) * k)));
    } else if (meaning.over_white) {
      for (int c = 0; c < 3; ++c) to[c] = over_white(in[c], in[3]);
    } else {
      to[0] = in[0];
      to[1] = in[1];
      to[2] = in[2];
    }
  }
  return out;
}

// 8-bit samples in place of 16-bit ones: grey saturates, everything else keeps its high byte.
void narrow(Samples& samples) {
  const int64_t count = samples.width * samples.height * samples.bands;
  const auto* in = static_cast<const uint16_t*>(samples.data.get());
  auto* out = static_cast<uint8_t*>(samples.data.get());
  const bool saturate = samples.bands == 1;
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t v = in[i];
    out[i] = static_cast<uint8_t>(saturate ? std::min<uint16_t>(v, 255) : v >> 8);
  }
  samples.format = VIPS_FORMAT_UCHAR;
}

at::Tensor decode_with_vips(std::string_view bytes, ImageFormat format, const DecodeOptions& options) {
  start_vips();
  std::string opaque;
  if (format == ImageFormat::gif) bytes = opaque = gif_opaque(bytes);
  Samples samples = read_samples(bytes, format, options);
  const bool wide = samples.format == VIPS_FORMAT_USHORT;
  if (wide) {
    narrow(samples);
  } else if (samples.format != VIPS_FORMAT_UCHAR) {
    throw Error(ErrorKind::unsupported, fmt::format("{} with samples of type {}: only 8 and 16 bits a channel are read", to_string(format),
                                                    vips_enum_nick(VIPS_TYPE_BAND_FORMAT, samples.format)));
  }
  Meaning meaning;
  meaning.cmyk = samples.interpretation == VIPS_INTERPRETATION_CMYK && samples.bands >= 4;
  // vips turns inks of JPEGs with Adobe's marker; Pillow takes every CMYK JPEG as stored that way.
  meaning.inverted = meaning.cmyk && format == ImageFormat::jpeg && !jpeg_has_adobe(bytes);
  // What Pillow opens as RGBA; its palettes, keyed colours and 8-bit grey+alpha are other modes.
  const int png = png_colour_type(bytes);
  const bool stored_rgba = format == ImageFormat::png ? png == 6 || (png == 4 && wide)
                                                      : samples.bands == 4 && !meaning.cmyk && format != ImageFormat::gif;
  meaning.over_white = stored_rgba && options.alpha == AlphaMode::white_rgba;
  return to_rgb(static_cast<const uint8_t*>(samples.data.get()), samples.width, samples.height, samples.bands, meaning);
}

}  // namespace

at::Tensor decode_image(std::string_view bytes, const DecodeOptions& options, std::string_view source) {
  return with_context(source, [&] {
    if (bytes.empty()) throw Error(ErrorKind::bad_file, "empty, not a picture");
    const ImageFormat format = sniff_format(bytes);
    if (format == ImageFormat::unknown) {
      throw Error(ErrorKind::bad_file, "not a picture (JPEG, PNG, GIF, WebP, TIFF and BMP are read)");
    }
    if (format == ImageFormat::bmp) return decode_bmp(bytes, options);
    return decode_with_vips(bytes, format, options);
  });
}

}  // namespace statera
