// SafetensorsFile: one .safetensors file, mapped and never copied. Opening reads and checks the header only; no data page is touched
// until a tensor's elements are. The file may lie in any way: every fault is one Error(bad_file) naming file, tensor and reason.
// No shards, no names of models, no quantization (checkpoint.h, format.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/file.h"

namespace statera {

// Longest header that is read or written, bytes.
constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

// One row of the dtype table. Rows stand in the order in which files sort their tensors, narrowest first.
struct StoredType {
  const char* name;      // "BF16"
  int bits;              // of one logical element (F4: 4, F6_*: 6)
  at::ScalarType torch;  // Undefined: LibTorch has no such type, the tensor cannot be read (only listed)
};
std::span<const StoredType> stored_types();
// nullptr when unknown.
const StoredType* stored_type(std::string_view name);
// The row of a LibTorch type; Error(unsupported) when files cannot hold it.
const StoredType& stored_type(at::ScalarType type);

struct TensorInfo {
  std::string name;
  at::ScalarType dtype = at::ScalarType::Undefined;
  const StoredType* type = nullptr;
  std::vector<int64_t> shape;  // logical elements
  uint64_t offset = 0;         // of the first byte, from the start of the file
  uint64_t bytes = 0;
  int64_t elements() const;
  // Shape in elements of LibTorch's type: F4 keeps two logical elements in one.
  std::vector<int64_t> torch_shape() const;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // by offset
  Metadata metadata;                // "__metadata__", in order of the file
  uint64_t data_begin = 0;          // 8 + length of the header
};

// Parses and checks the header of a whole file held in `file`; reads nothing behind it. `where` names the file in errors.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view where);

// Copyable handle; copies share the mapping.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  const std::string& path() const { return mapping_.path(); }
  const std::vector<TensorInfo>& tensors() const { return state_->header.tensors; }
  const Metadata& metadata() const { return state_->header.metadata; }
  // nullptr when absent. O(1).
  const TensorInfo* find(std::string_view name) const;
  // A read-only view of the mapping that keeps it alive (writing to it is a fault); a tensor that is not aligned to its element is
  // copied. Error(not_found) when absent, Error(unsupported) for a dtype without a LibTorch type.
  at::Tensor tensor(std::string_view name) const;
  at::Tensor tensor(const TensorInfo& info) const;
  // Drops the resident pages of a tensor; they are read again when used.
  void release(const TensorInfo& info) const { mapping_.release(info.offset, info.bytes); }
  void prefetch(const TensorInfo& info) const { mapping_.prefetch(info.offset, info.bytes); }
  const MappedFile& mapping() const { return mapping_; }

 private:
  struct State {
    SafetensorsHeader header;
    std::unordered_map<std::string_view, size_t> index;  // keys point into header
  };
  MappedFile mapping_;
  std::shared_ptr<const State> state_;
};

}  // namespace statera
