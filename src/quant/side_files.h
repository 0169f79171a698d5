// The files of a checkpoint folder that are no weights (tokenizer, templates, processor and generation configs, licence): carried over
// unchanged. config.json and the weight index are written anew elsewhere; pickles are never carried.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace statera {

constexpr uint64_t kMaxSideFile = 256u << 20;

struct SideFiles {
  std::vector<std::pair<std::string, uint64_t>> carried;  // name, bytes; sorted by name
  std::vector<std::string> left_out;                      // larger than kMaxSideFile, or pickled
};
SideFiles side_files(const std::string& source);
// Copies them, synced, mode as any new file's.
void copy_side_files(const SideFiles& files, const std::string& source, const std::string& folder);

}  // namespace statera
