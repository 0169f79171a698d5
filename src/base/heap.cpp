// See heap.h.
#include "base/heap.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>

namespace statera {

void return_freed_memory() {
#ifdef M_ARENA_MAX
  ::mallopt(M_ARENA_MAX, 2);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

uint64_t memory_of_machine() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  uint64_t bytes = pages > 0 && size > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(size) : 0;
  for (const char* limit : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    unsigned long long most = 0;
    if (std::FILE* f = std::fopen(limit, "r")) {
      if (std::fscanf(f, "%llu", &most) == 1 && most > 0) bytes = bytes ? std::min<uint64_t>(bytes, most) : most;
      std::fclose(f);
    }
  }
  return bytes;
}

namespace {

constexpr uint64_t kHuge = uint64_t{2} << 20, kChunk = uint64_t{64} << 20, kLine = 64;

// Whole huge pages, handed out from their beginning on.
class Chunk {
 public:
  explicit Chunk(uint64_t bytes) : size_((bytes + kHuge - 1) / kHuge * kHuge), mapped_(size_ + kHuge) {
    if (size_ < bytes || mapped_ < size_) throw std::bad_alloc();
    map_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map_ == MAP_FAILED) throw std::bad_alloc();
    begin_ = static_cast<char*>(map_) + (kHuge - reinterpret_cast<uintptr_t>(map_) % kHuge) % kHuge;
    ::madvise(begin_, size_, MADV_HUGEPAGE);  // a wish: what the system does not offer costs nothing
  }
  ~Chunk() { ::munmap(map_, mapped_); }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;
  uint64_t left() const { return size_ - used_; }
  void* take(uint64_t bytes) {
    void* memory = begin_ + used_;
    used_ = std::min(size_, (used_ + bytes + kLine - 1) / kLine * kLine);
    return memory;
  }

 private:
  uint64_t size_, mapped_, used_ = 0;
  void* map_ = nullptr;
  char* begin_ = nullptr;
};

}  // namespace

std::shared_ptr<void> large_memory(uint64_t bytes) {
  static std::mutex mutex;
  static std::weak_ptr<Chunk> open;  // goes with the last piece of it
  const std::lock_guard lock(mutex);
  std::shared_ptr<Chunk> from = open.lock();
  if (!from || from->left() < bytes) {
    const uint64_t left = from ? from->left() : 0;
    from = std::make_shared<Chunk>(std::max(bytes, kChunk));
    if (from->left() - bytes > left || left == 0) open = from;
  }
  return {from, from->take(bytes)};
}

void use_huge_pages() { ::setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0); }  // read by LibTorch's allocator

}  // namespace statera
