// Bytes of a picture as a data: source, which is how pictures without a file of their own travel in messages. Decoding is in image/fetch.h.
#pragma once

#include <string>
#include <string_view>

namespace statera {

inline std::string encode_base64(std::string_view bytes) {
  static constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    unsigned long word = 0;
    const size_t count = bytes.size() - i < 3 ? bytes.size() - i : 3;
    for (size_t j = 0; j < 3; ++j) word = word << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= count ? kLetters[word >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

}  // namespace statera
