// Files: whole reads, read-only mappings, and outputs that appear under their final name only when complete.
// Errors are Error(io|not_found) naming the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace statera {

// The whole file as bytes; refuses files larger than max_bytes (bad_file) and things that are no regular file.
std::string read_file(const std::string& path, uint64_t max_bytes = 1u << 30);
bool is_file(const std::string& path);
bool is_directory(const std::string& path);
uint64_t file_size(const std::string& path);
// Writes path.tmp.<pid>, fsyncs, renames over path (mode 0666 & ~umask), fsyncs the folder.
void write_file_atomic(const std::string& path, std::string_view bytes);
// Adds bytes at the end of a file, which is made when absent, in one write.
void append_to_file(const std::string& path, std::string_view bytes);
// fsync of a folder, so that a rename in it survives a crash.
void sync_directory(const std::string& path);

// A read-only shared mapping of a whole file; pages are read on first use. Copyable handle.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  const std::byte* data() const;
  uint64_t size() const;
  const std::string& path() const;
  std::span<const std::byte> bytes() const { return {data(), static_cast<size_t>(size())}; }
  // Drops resident pages of [offset, offset+length): they are read again when used.
  void release(uint64_t offset, uint64_t length) const;
  // Asks the kernel to read [offset, offset+length) ahead.
  void prefetch(uint64_t offset, uint64_t length) const;
  // Throws Error(io) when the file on disk is now shorter than the mapping (a later read would be a SIGBUS).
  void check_not_truncated() const;

 private:
  struct Mapping;
  std::shared_ptr<const Mapping> m_;
};

// A file written front to back (with seeks) under a temporary name beside its target; commit() fsyncs and renames.
// Destroyed without commit: the temporary is removed. A full disk is Error(io) naming the path and the bytes asked for.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, size_t bytes);
  void write_at(uint64_t offset, const void* data, size_t bytes);
  uint64_t written() const { return position_; }
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  uint64_t position_ = 0;
};

}  // namespace statera
