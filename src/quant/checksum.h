// Checksum: 64 bits over the bytes of a tensor, taken when it is written and again when the files are read back. Against mistakes and
// bad disks, not against intent (the manifest has SHA-256); several GB/s.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace statera {

class Checksum {
 public:
  // Pieces but the last must be multiples of 32 bytes: then the split does not matter.
  void add(std::span<const std::byte> bytes) {
    size_t at = 0;
    for (; at + 32 <= bytes.size(); at += 32) {
      for (size_t lane = 0; lane < 4; ++lane) {
        uint64_t word;
        std::memcpy(&word, bytes.data() + at + 8 * lane, 8);
        lanes_[lane] = mix(lanes_[lane] ^ word);
      }
    }
    for (; at < bytes.size(); ++at) lanes_[at % 4] = mix(lanes_[at % 4] ^ (static_cast<uint64_t>(bytes[at]) + 1));
    size_ += bytes.size();
  }
  uint64_t value() const {
    uint64_t v = size_;
    for (uint64_t lane : lanes_) v = mix(v ^ lane);
    return v;
  }

 private:
  // One round is a bijection of 64 bits, so a single changed word always shows.
  static uint64_t mix(uint64_t v) {
    v *= 0x9E3779B97F4A7C15ull;
    return v ^ (v >> 29);
  }
  uint64_t lanes_[4] = {1, 2, 3, 4}, size_ = 0;
};

}  // namespace statera
