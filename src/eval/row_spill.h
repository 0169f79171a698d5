// RowSpill: rows of tensors kept in a temporary file without a name, so that a kill leaves nothing behind. For results of a model that
// has to leave memory before the next one comes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace statera {

class RowSpill {
 public:
  // folder: empty for the system's temporary folder. Error(io|not_found) naming it.
  explicit RowSpill(const std::string& folder);
  ~RowSpill();
  RowSpill(const RowSpill&) = delete;
  RowSpill& operator=(const RowSpill&) = delete;
  // Keeps a tensor as it is, dtype and all. Error(io) when the disk has no room for it, saying how much is missing.
  void append(const at::Tensor& rows);
  // Tensor number i, bit for bit.
  at::Tensor read(size_t i) const;
  size_t size() const { return entries_.size(); }
  uint64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    uint64_t offset = 0;
    std::vector<int64_t> shape;
    at::ScalarType dtype = at::kFloat;
  };
  std::string folder_;
  int fd_ = -1;
  uint64_t bytes_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace statera
