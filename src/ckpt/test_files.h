// Hand-made safetensors files for tests.
#pragma once

#include <cstdint>
#include <string>

#include "base/test_files.h"

namespace statera {

// Header length word, header, data, as given.
inline std::string raw_safetensors(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}
inline void write_raw(const std::string& path, const std::string& header, const std::string& data) {
  write_text(path, raw_safetensors(header, data));
}

}  // namespace statera
