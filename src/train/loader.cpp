// See loader.h.
#include "train/loader.h"

#include <algorithm>

#include "base/threads.h"

namespace statera {

Loader::Loader(Make make, uint64_t first, int64_t threads, uint64_t ahead)
    : make_(std::move(make)), next_(first), taken_(first), ahead_(std::max<uint64_t>(1, ahead)) {
  for (int64_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Loader::~Loader() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  room_.notify_all();
  for (std::thread& t : threads_) t.join();
}

Loader::Made Loader::make_one(uint64_t k) const {
  Made out;
  try {
    out.item.sample = make_(k);
  } catch (const BadItem& e) {
    out.item.bad = e;
  } catch (...) {
    out.fault = std::current_exception();
  }
  return out;
}

void Loader::work() {
  const InlineScope beside_the_pool;
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [&] { return stop_ || taken_ < next_ + ahead_; });
    if (stop_) return;
    const uint64_t k = taken_++;
    lock.unlock();
    Made made = make_one(k);
    lock.lock();
    made_.emplace(k, std::move(made));
    ready_.notify_all();
  }
}

Loader::Item Loader::next() {
  Made made;
  if (threads_.empty()) {
    made = make_one(next_++);
  } else {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return made_.contains(next_); });
    made = std::move(made_.extract(next_).mapped());
    ++next_;
    lock.unlock();
    room_.notify_all();
  }
  if (made.fault) std::rethrow_exception(made.fault);
  return std::move(made.item);
}

}  // namespace statera
