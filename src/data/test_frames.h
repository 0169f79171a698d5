// Zstandard frames spelled by hand for the tests of this folder: magic number, frame header, then blocks that are raw or repeat one byte
// (RFC 8878). No checksums.
#pragma once

#include <cstdint>
#include <string>

namespace statera {

inline std::string little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 255);
  return out;
}

constexpr uint64_t kZstBlock = 128 << 10;  // largest block

// kind 0: raw, 1: the one byte repeated `length` times.
inline std::string zst_block(bool last, int kind, uint64_t length, const std::string& content) {
  return little(static_cast<uint64_t>(last) | static_cast<uint64_t>(kind) << 1 | length << 3, 3) + content;
}
// A frame without content size, window of 1 MiB.
inline std::string zst_frame(const std::string& blocks) { return little(0xFD2FB528, 4) + little(0, 1) + little(80, 1) + blocks; }
inline std::string zst_raw(const std::string& text) { return zst_frame(zst_block(true, 0, text.size(), text)); }

}  // namespace statera
