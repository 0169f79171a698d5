// What the C++ side of the Rust ABI shares: buffers as strings, statuses as Errors. Included by the .cpp files of this folder only.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "statera_text.h"

namespace statera {

inline const uint8_t* rust_bytes(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

// The bytes of a buffer, which is freed.
inline std::string take(StateraBuffer buffer) {
  std::string out(reinterpret_cast<const char*>(buffer.data), buffer.size);
  statera_text_free(buffer);
  return out;
}

// Throws the Error of a status that is not ok.
inline void require_ok(int32_t status, StateraBuffer& error, ErrorKind kind) {
  if (status == STATERA_TEXT_OK) return;
  throw Error(status == STATERA_TEXT_RAISED ? ErrorKind::usage : kind, take(error));
}

}  // namespace statera
