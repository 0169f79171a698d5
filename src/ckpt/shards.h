// Shards of a checkpoint written tensor by tensor: a plan made before any data exists, and files of known final size that are
// filled at fixed offsets, in any order, again after a kill. Who names the staging folder and renames it is the caller's matter.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "ckpt/safetensors_write.h"

namespace statera {

constexpr uint64_t kDefaultShardBytes = 5'000'000'000;

struct ShardPlan {
  struct File {
    std::string name;  // model-00001-of-00003.safetensors, or model.safetensors when it is the only one
    FilePlan plan;
  };
  std::vector<File> files;
  std::unordered_map<std::string, size_t> file_of;  // tensor -> index in files
  uint64_t total_bytes = 0;                         // of tensor data
  std::optional<int64_t> parameters;
  // model.safetensors.index.json, or empty when there is one file only.
  std::string index_json() const;
};

// Fills shards of at most max_shard_bytes of data in the given order. Neighbours of one module ("a.b.weight_packed",
// "a.b.weight_scale") stay in one shard. `parameters`, if known, is recorded in the index.
ShardPlan plan_shards(const std::vector<TensorPlan>& tensors, uint64_t max_shard_bytes = kDefaultShardBytes,
                      const Metadata& metadata = torch_metadata(), std::optional<int64_t> parameters = {});

// One shard being written. Opening reserves the whole file (a full disk is one Error(io) here, not hours later) and writes the header.
class ShardFile {
 public:
  ShardFile(const std::string& folder, const ShardPlan::File& file);
  ~ShardFile();
  ShardFile(ShardFile&& other) noexcept;
  ShardFile& operator=(ShardFile&&) = delete;
  const std::string& path() const { return path_; }
  // Writes the whole tensor; dtype and shape must be the planned ones.
  void write(std::string_view name, const at::Tensor& t);
  // Writes bytes [at, at + size) of a tensor. May be called from several threads.
  void write_bytes(std::string_view name, uint64_t at, const void* data, uint64_t size);
  // Everything written so far survives a crash.
  void sync();

 private:
  const TensorInfo& info(std::string_view name) const;
  void put(uint64_t offset, const void* data, uint64_t size);
  std::string path_;
  std::unordered_map<std::string, TensorInfo> tensors_;
  int fd_ = -1;
};

}  // namespace statera
