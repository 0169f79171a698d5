// buffers: memory of large tensors on its way from one temporary to the next. The C library gives such memory back to the system at once, and
// every new temporary is then mapped and cleared page by page: a tenth of the time of a forward pass.
#pragma once

#include <cstdint>

namespace statera {

// What most runs allow beyond their peak.
inline constexpr uint64_t kKeptBuffers = uint64_t{128} << 20;

// While it lives, freed tensor memory of 1 MiB and more is kept for tensors of the same size, the oldest given up first: kept and used
// together never come to more than the most that was used at once and `bytes`, which may be 0. For the whole process; the bytes of several
// add up.
class KeptBuffers {
 public:
  explicit KeptBuffers(uint64_t bytes = kKeptBuffers);
  ~KeptBuffers();
  // Bytes that are kept now, by all of them.
  uint64_t bytes() const;
  KeptBuffers(const KeptBuffers&) = delete;
  KeptBuffers& operator=(const KeptBuffers&) = delete;

 private:
  uint64_t allowed_;
};

}  // namespace statera
