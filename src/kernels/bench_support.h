// Shared by the kernel benchmarks: threads, and memory larger than any cache. Not linked into the library.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace statera::kernels::bench {

inline constexpr int64_t kN = 4096, kK = 4096, kWorkingSet = int64_t{256} << 20;

// body(t) for t < threads at once.
template <class F>
void on_threads(int threads, F body) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
  body(0);
  for (auto& t : others) t.join();
}

// body(begin, end): the share of each thread in kN rows, in whole blocks of 16.
template <class F>
void on_rows(int threads, F body) {
  on_threads(threads, [&](int t) { body(kN / 16 * t / threads * 16, kN / 16 * (t + 1) / threads * 16); });
}

// `count` matrices of `bytes` each, 64-byte aligned, in huge pages where the system offers them, as the library keeps weights.
struct Matrices {
  static constexpr size_t kHuge = size_t{2} << 20;
  size_t bytes;
  int count;
  std::unique_ptr<uint8_t[]> storage;
  uint8_t* first;
  Matrices(size_t bytes_each, int64_t working_set)
      : bytes(bytes_each),
        count(working_set > static_cast<int64_t>(bytes_each) ? static_cast<int>(working_set / static_cast<int64_t>(bytes_each)) : 1),
        storage(new uint8_t[bytes * count + kHuge]),
        first(storage.get() + (kHuge - reinterpret_cast<uintptr_t>(storage.get()) % kHuge) % kHuge) {
    ::madvise(first, bytes * count / kHuge * kHuge, MADV_HUGEPAGE);
    __builtin_memset(first, 0, bytes * count);
  }
  uint8_t* at(int i) const { return first + bytes * i; }
  // Copies the first matrix over the others.
  void repeat() const {
    for (int i = 1; i < count; ++i) __builtin_memcpy(at(i), first, bytes);
  }
};

}  // namespace statera::kernels::bench
