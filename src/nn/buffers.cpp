// An allocator in front of LibTorch's own, which must hand out memory that is freed by its address alone (raw_deleter).
#include "nn/buffers.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <unordered_map>

#include "base/error.h"

namespace statera {
namespace {

constexpr size_t kLarge = size_t{1} << 20;

class Keeper final : public c10::Allocator {
 public:
  explicit Keeper(c10::Allocator* under) : under_(under), free_(under->raw_deleter()) { check(free_ != nullptr, "an allocator without raw memory"); }
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kLarge) return under_->allocate(bytes);
    void* memory = take(bytes);  // what had to be given up for new memory is gone by now
    if (!memory) {
      memory = under_->allocate(bytes).release_context();
      const std::lock_guard hold(lock_);
      sizes_[memory] = bytes;
    }
    return {memory, memory, &give, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give; }
  void copy_data(void* to, const void* from, size_t bytes) const override { under_->copy_data(to, from, bytes); }
  uint64_t held() {
    const std::lock_guard hold(lock_);
    return held_;
  }
  void allow(uint64_t bytes) {
    const std::lock_guard hold(lock_);
    if (keepers_++ == 0) peak_ = used_;
    most_ += bytes;
  }
  void allow_less(uint64_t bytes) {
    const std::lock_guard hold(lock_);
    --keepers_;
    most_ -= bytes;
    shrink();
  }

 private:
  static void give(void* memory);
  void* take(size_t bytes) {
    const std::lock_guard hold(lock_);
    void* memory = nullptr;
    for (auto it = kept_.rbegin(); it != kept_.rend(); ++it) {
      if (it->second != bytes) continue;
      memory = it->first;
      kept_.erase(std::next(it).base());
      held_ -= bytes;
      break;
    }
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    shrink();
    return memory;
  }
  // Small memory, and that of the time before this object, is not known here.
  void keep(void* memory) {
    {
      const std::lock_guard hold(lock_);
      if (auto it = sizes_.find(memory); it != sizes_.end()) {
        kept_.emplace_back(memory, it->second);
        held_ += it->second;
        used_ -= it->second;
        return shrink();
      }
    }
    free_(memory);
  }
  void shrink() {
    const uint64_t most = keepers_ == 0 ? 0 : most_ + peak_ - used_;
    while (held_ > most) {
      const auto [memory, bytes] = kept_.front();
      kept_.pop_front();
      held_ -= bytes;
      sizes_.erase(memory);
      free_(memory);
    }
  }

  c10::Allocator* under_;
  c10::DeleterFnPtr free_;
  std::mutex lock_;
  std::unordered_map<void*, size_t> sizes_;       // of large memory, used or kept
  std::list<std::pair<void*, size_t>> kept_;      // newest last
  uint64_t held_ = 0, used_ = 0, peak_ = 0, most_ = 0;  // bytes: kept, used, most used since any were allowed, allowed beyond that
  int keepers_ = 0;                                     // KeptBuffers that live
};

Keeper& keeper() {
  static Keeper* one = new Keeper(c10::GetCPUAllocator());  // never destroyed: tensors may outlive everything
  return *one;
}

void Keeper::give(void* memory) { keeper().keep(memory); }

}  // namespace

// The allocator stays: tensors of its making may live on.
KeptBuffers::KeptBuffers(uint64_t bytes) : allowed_(bytes) {
  keeper().allow(bytes);
  c10::SetCPUAllocator(&keeper(), /*priority=*/1);
}

uint64_t KeptBuffers::bytes() const { return keeper().held(); }

KeptBuffers::~KeptBuffers() { keeper().allow_less(allowed_); }

}  // namespace statera
