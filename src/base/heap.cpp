// See heap.h.
#include "base/heap.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
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

void* large_memory(uint64_t bytes) {
  constexpr uint64_t kHuge = uint64_t{2} << 20;
  void* memory = nullptr;
  if (::posix_memalign(&memory, bytes >= kHuge ? kHuge : 64, std::max<uint64_t>(bytes, 1)) != 0) throw std::bad_alloc();
  if (bytes >= kHuge) ::madvise(memory, bytes / kHuge * kHuge, MADV_HUGEPAGE);  // a wish: what the system does not offer costs nothing
  return memory;
}

void use_huge_pages() { ::setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0); }  // read by LibTorch's allocator

}  // namespace statera
