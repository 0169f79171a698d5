// Planning of shards and positioned writes into them.
#include "ckpt/shards.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

std::string_view module_of(std::string_view name) {
  auto dot = name.rfind('.');
  return dot == name.npos ? name : name.substr(0, dot);
}

std::string shard_name(size_t i, size_t count) {
  if (count == 1) return "model.safetensors";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "model-%05zu-of-%05zu.safetensors", i + 1, count);
  return buffer;
}

}  // namespace

std::string ShardPlan::index_json() const {
  if (files.size() <= 1) return "";
  Json metadata = Json::object();
  if (parameters) metadata.set("total_parameters", *parameters);
  metadata.set("total_size", total_bytes);
  std::map<std::string, std::string> sorted;
  for (const auto& [tensor, file] : file_of) sorted[tensor] = files[file].name;
  Json map = Json::object();
  for (const auto& [tensor, file] : sorted) map.members().emplace_back(tensor, file);
  Json index = Json::object();
  index.set("metadata", std::move(metadata));
  index.set("weight_map", std::move(map));
  return index.dump(2) + "\n";
}

ShardPlan plan_shards(const std::vector<TensorPlan>& tensors, uint64_t max_shard_bytes, const Metadata& metadata,
                      std::optional<int64_t> parameters) {
  std::vector<std::vector<TensorPlan>> shards(1);
  uint64_t held = 0;
  ShardPlan plan;
  plan.parameters = parameters;
  for (size_t i = 0; i < tensors.size();) {
    size_t end = i;
    uint64_t unit = 0;
    for (; end < tensors.size() && module_of(tensors[end].name) == module_of(tensors[i].name); ++end) unit += tensors[end].bytes();
    if (held > 0 && held + unit > max_shard_bytes) {
      shards.emplace_back();
      held = 0;
    }
    shards.back().insert(shards.back().end(), tensors.begin() + static_cast<ptrdiff_t>(i), tensors.begin() + static_cast<ptrdiff_t>(end));
    held += unit;
    plan.total_bytes += unit;
    i = end;
  }
  for (size_t s = 0; s < shards.size(); ++s) {
    for (const TensorPlan& t : shards[s]) check(plan.file_of.emplace(t.name, s).second, "tensor planned twice: " + t.name);
    plan.files.push_back({shard_name(s, shards.size()), plan_file(std::move(shards[s]), metadata)});
  }
  return plan;
}

ShardFile::ShardFile(const std::string& folder, const ShardPlan::File& file) : path_(folder + "/" + file.name) {
  for (const TensorInfo& t : file.plan.tensors) tensors_.emplace(t.name, t);
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) throw io_error(path_, errno);
  try {
    const auto bytes = static_cast<off_t>(file.plan.bytes);
    struct stat st {};
    if (::fstat(fd_, &st) != 0 || (st.st_size > bytes && ::ftruncate(fd_, bytes) != 0)) throw io_error(path_, errno);
    if (::fallocate(fd_, 0, 0, bytes) != 0) {
      // Not every file system can reserve; there a full disk shows at the write.
      if (errno != EOPNOTSUPP && errno != ENOSYS)
        throw io_error(path_, errno).within("reserving " + human_bytes(static_cast<double>(bytes)));
      if (::ftruncate(fd_, bytes) != 0) throw io_error(path_, errno);
    }
    put(0, file.plan.header.data(), file.plan.header.size());
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

ShardFile::~ShardFile() {
  if (fd_ >= 0) ::close(fd_);
}

ShardFile::ShardFile(ShardFile&& other) noexcept
    : path_(std::move(other.path_)), tensors_(std::move(other.tensors_)), fd_(std::exchange(other.fd_, -1)) {}

const TensorInfo& ShardFile::info(std::string_view name) const {
  auto it = tensors_.find(std::string(name));
  check(it != tensors_.end(), "tensor not planned in this shard: " + std::string(name));
  return it->second;
}

void ShardFile::put(uint64_t offset, const void* data, uint64_t size) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    ssize_t n = ::pwrite(fd_, from, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(path_, errno);
    from += n;
    offset += static_cast<uint64_t>(n);
    size -= static_cast<uint64_t>(n);
  }
}

void ShardFile::write(std::string_view name, const at::Tensor& t) {
  const TensorInfo& planned = info(name);
  check(t.defined() && t.scalar_type() == planned.dtype && t.sizes().vec() == planned.torch_shape(),
        "tensor differs from its plan: " + planned.name);
  const at::Tensor data = contiguous_bytes(t);
  with_context("tensor " + planned.name, [&] { put(planned.offset, data.data_ptr(), planned.bytes); });
}

void ShardFile::write_bytes(std::string_view name, uint64_t at, const void* data, uint64_t size) {
  const TensorInfo& planned = info(name);
  check(at <= planned.bytes && size <= planned.bytes - at, "write past the end of " + planned.name);
  with_context("tensor " + planned.name, [&] { put(planned.offset + at, data, size); });
}

void ShardFile::sync() {
  if (::fdatasync(fd_) != 0) throw io_error(path_, errno);
}

}  // namespace statera
