// Any bytes: decode_image either gives a picture within the limit or throws Error; both alpha modes, with and without turning.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "image/decode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace statera;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (bool util : {false, true}) {
    try {
      const at::Tensor picture = decode_image(bytes, {util ? AlphaMode::white_rgba : AlphaMode::drop, !util, 1 << 20}, "fuzz");
      check(picture.size(0) * picture.size(1) <= 1 << 20 && picture.size(2) == 3, "decode_image");
    } catch (const Error&) {
    }
  }
  return 0;
}
