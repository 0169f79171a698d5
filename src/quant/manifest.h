// statera.json of an output folder: how it was made and the SHA-256 of every file beside it. Deterministic: no times, no paths.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <future>
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
// Digests of the named files of a folder, in their order: one thread begins at once, beside what its maker does, and finish() reads what is left on all.
class Digests {
 public:
  Digests(std::string folder, std::vector<std::string> names);
  ~Digests();  // what is not read yet stays unread
  Digests(const Digests&) = delete;
  Digests& operator=(const Digests&) = delete;
  std::vector<FileDigest> finish();  // once

 private:
  void take();
  std::string folder_;
  std::vector<std::string> names_;
  std::vector<FileDigest> found_;
  std::atomic<size_t> next_{0};
  std::future<void> beside_;
};

}  // namespace statera
