// Zstandard files unpacked piece by piece into a temporary file, so that a data file of any size can be read in any order without
// being held in memory. One facade: zstd's header is seen by unpack.cpp only.
#pragma once

#include <cstdint>
#include <string>

#include "base/file.h"

namespace statera {

// A file may unpack to `free` bytes whatever its size, beyond that to `ratio` times its size, and never to more than `most`.
struct UnpackLimits {
  uint64_t free = 64ull << 20, ratio = 500, most = 32ull << 30;
};

// All frames of a .zst file, unpacked. The file behind the mapping lies in the folder for temporary files (TMPDIR) and has no name any
// more. Errors: not_found; bad_file for what is no Zstandard, is damaged, ends in the middle or unpacks to more than the limits allow; io
// when the temporary file cannot be written.
MappedFile unpack_zstd(const std::string& path, const UnpackLimits& limits = {});

}  // namespace statera
