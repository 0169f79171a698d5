// Any bytes as a safetensors file: an Error or tensors that lie within the bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "ckpt/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace statera;
  try {
    const auto header = parse_safetensors_header({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    uint64_t at = header.data_begin;
    for (const TensorInfo& t : header.tensors) {
      if (t.offset != at || t.bytes > size - t.offset) std::abort();
      at += t.bytes;
      volatile std::byte last{};
      if (t.bytes > 0) last = reinterpret_cast<const std::byte*>(data)[t.offset + t.bytes - 1];
      (void)last;
    }
    if (at != size) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
