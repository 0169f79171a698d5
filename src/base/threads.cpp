// A pool that spins briefly before it sleeps: decode calls it hundreds of times per token.
#include "base/threads.h"

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace statera {
namespace {

thread_local bool inside = false;

int default_threads() {
  if (const char* wish = std::getenv("STATERA_THREADS")) {
    int n = std::atoi(wish);
    if (n < 1 || n > 1024) throw Error(ErrorKind::usage, "STATERA_THREADS must be between 1 and 1024, is \"" + std::string(wish) + "\"");
    return n;
  }
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return std::max(1u, std::thread::hardware_concurrency());
}

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& w : workers_) w.join();
  }
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t count, int64_t chunk, const std::function<void(int64_t, int64_t)>& body) {
    std::lock_guard one_job(job_mutex_);
    body_ = &body;
    count_ = count;
    chunk_ = chunk;
    next_.store(0, std::memory_order_relaxed);
    fault_ = nullptr;
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    {
      std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take();
    while (busy_.load(std::memory_order_acquire) > 0) __builtin_ia32_pause();
    if (fault_) std::rethrow_exception(std::exchange(fault_, nullptr));
  }

 private:
  void take() {
    inside = true;
    while (true) {
      int64_t begin = next_.fetch_add(chunk_, std::memory_order_relaxed);
      if (begin >= count_) break;
      try {
        (*body_)(begin, std::min(begin + chunk_, count_));
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!fault_) fault_ = std::current_exception();
        next_.store(count_, std::memory_order_relaxed);
      }
    }
    inside = false;
  }
  void work() {
    uint64_t seen = 0;
    while (true) {
      for (int spin = 0; spin < 4000 && generation_.load(std::memory_order_acquire) == seen; ++spin) __builtin_ia32_pause();
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stop_) return;
      take();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::mutex job_mutex_, mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};
  bool stop_ = false;
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  int64_t count_ = 0, chunk_ = 1;
  std::exception_ptr fault_;
};

std::mutex pool_mutex;
std::unique_ptr<Pool> the_pool;

Pool& pool() {
  std::lock_guard lock(pool_mutex);
  if (!the_pool) the_pool = std::make_unique<Pool>(default_threads());
  return *the_pool;
}

}  // namespace

int num_threads() { return pool().threads(); }

void set_num_threads(int count) {
  if (count < 1 || count > 1024) throw Error(ErrorKind::usage, "threads must be between 1 and 1024, is " + std::to_string(count));
  std::lock_guard lock(pool_mutex);
  if (!the_pool || the_pool->threads() != count) {
    the_pool.reset();
    the_pool = std::make_unique<Pool>(count);
  }
}

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (inside || count <= grain) return body(0, count);
  Pool& p = pool();
  if (p.threads() == 1) return body(0, count);
  int64_t chunk = std::max(grain, (count + p.threads() * 4 - 1) / (p.threads() * 4));
  p.run(count, chunk, body);
}

}  // namespace statera
