// statera.json of an output folder: how it was made and the SHA-256 of every file beside it. Deterministic: no times, no paths.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace statera {

struct FileDigest {
  std::string name;
  uint64_t bytes = 0;
  std::string sha256;  // 64 hex digits
};

// `run`: what was done, with which options, from what. Ends with a newline.
std::string manifest_text(const Json& run, const std::vector<FileDigest>& files);
// Digests of the named files of a folder, in their order; read in parallel.
std::vector<FileDigest> digest_files(const std::string& folder, const std::vector<std::string>& names);

}  // namespace statera
