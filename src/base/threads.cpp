// Workers spin briefly between jobs, since decoding calls the pool hundreds of times per token, and sleep when idle or when the machine is
// busy with others. LibTorch's own pool is left at one thread for inference (nn/threads.h), so two sets of workers never compete.
#include "base/threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/profile.h"

namespace statera {
namespace {

constexpr int kSpins = 2000;  // pause instructions before sleeping or yielding: some 100 microseconds

thread_local bool inside = false;

int checked(int count, const char* what) {
  if (count < 1 || count > 1024) {
    throw Error(ErrorKind::usage, std::string(what) + " must be between 1 and 1024, is " + std::to_string(count));
  }
  return count;
}

int default_threads() {
  if (const char* wish = std::getenv("STATERA_THREADS")) return checked(std::atoi(wish), "STATERA_THREADS");
  const auto here = static_cast<int>(std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN)));
  cpu_set_t set;
  const int usable = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : here;
  const char* processes = std::getenv("LOCAL_WORLD_SIZE");
  return usable < here || !processes ? usable : std::max(1, usable / std::max(1, std::atoi(processes)));
}

// STATERA_PIN=1: workers stay where they are put. Not by itself, since two processes that do so on one machine would share CPUs and leave others idle.
bool wants_pins() {
  const char* wish = std::getenv("STATERA_PIN");
  if (!wish || std::string_view(wish) == "0") return false;
  if (std::string_view(wish) == "1") return true;
  throw Error(ErrorKind::usage, std::string("STATERA_PIN must be 0 or 1, is ") + wish);
}

// Onto CPU number `worker` of those that this process may run on; the calling thread, which is not ours to bind, counts as number 0.
void pin(int worker) {
  cpu_set_t all, one;
  if (::sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) == 0) return;
  int left = worker % CPU_COUNT(&all), cpu = 0;
  while (!CPU_ISSET(cpu, &all) || left-- > 0) ++cpu;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  ::sched_setaffinity(0, sizeof one, &one);  // where that may not be, workers stay free
}

// A job is a number and the pieces nobody has taken yet, in one word: taking a piece is one exchange, which fails for a worker that still has
// an older job in mind. A job ends with its last piece, so it never waits for a worker that is only waking up.
class Pool {
 public:
  explicit Pool(int threads) {
    const bool pins = wants_pins();
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i, pins] {
        if (pins) pin(i);
        work();
      });
    }
  }
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& w : workers_) w.join();
  }
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
    std::lock_guard one_job(job_mutex_);
    body_ = &body;
    cut(count, grain);
    done_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    fault_ = nullptr;
    const uint64_t number = (job_.load(std::memory_order_relaxed) >> 32) + 1;
    job_.store(number << 32 | static_cast<uint64_t>(pieces_));
    if (sleeping_.load() > 0) {
      { std::lock_guard between_its_last_look_and_sleep(mutex_); }
      wake_.notify_all();
    }
    take();
    for (int spin = 0; done_.load(std::memory_order_acquire) < pieces_; ++spin) {
      if (spin < kSpins) {
        __builtin_ia32_pause();
      } else {
        ::sched_yield();
      }
    }
    if (fault_) std::rethrow_exception(std::exchange(fault_, nullptr));
  }

 private:
  // Pieces of whole grains: of a quarter of a thread's share each, and of the last half of all work half of what a thread's share of the rest is. Large
  // ones first, since memory is read best in long stretches; small ones last, so that no thread waits long for one that began late or is slower.
  void cut(int64_t count, int64_t grain) {
    starts_.assign(1, 0);
    const int64_t grains = (count + grain - 1) / grain, most = (grains + 4 * threads() - 1) / (4 * threads());
    for (int64_t left = grains; left > 0;) {
      const int64_t taken = std::min(most, (left + 2 * threads() - 1) / (2 * threads()));
      left -= taken;
      starts_.push_back(std::min(count, starts_.back() + taken * grain));
    }
    pieces_ = static_cast<int64_t>(starts_.size()) - 1;
  }
  static int64_t left(uint64_t job) { return static_cast<int64_t>(job & 0xffffffff); }
  void take() {
    inside = true;
    uint64_t job = job_.load(std::memory_order_acquire);
    while (left(job) > 0) {
      if (!job_.compare_exchange_weak(job, job - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      const auto piece = static_cast<size_t>(pieces_ - left(job));  // what describes the job stays until this piece is done
      try {
        if (!failed_.load(std::memory_order_relaxed)) (*body_)(starts_[piece], starts_[piece + 1]);
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!fault_) fault_ = std::current_exception();
        failed_.store(true, std::memory_order_relaxed);
      }
      done_.fetch_add(1, std::memory_order_release);
      job = job_.load(std::memory_order_acquire);
    }
    inside = false;
  }
  void work() {
    auto open = [this] { return left(job_.load()) > 0; };
    while (true) {
      for (int spin = 0; spin < kSpins && !open(); ++spin) __builtin_ia32_pause();
      if (!open()) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return stop_ || open(); });
        sleeping_.fetch_sub(1);
        if (stop_) return;
      }
      take();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex job_mutex_, mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> job_{0};  // its number, 32 bits; pieces not taken, 32 bits
  std::atomic<int> sleeping_{0};
  std::atomic<int64_t> done_{0};  // pieces
  std::atomic<bool> failed_{false};
  bool stop_ = false;
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  std::vector<int64_t> starts_;  // of the pieces, and the end
  int64_t pieces_ = 0;
  std::exception_ptr fault_;
};

std::mutex pool_mutex;
std::shared_ptr<Pool> the_pool;

// Held while a job runs, so that set_num_threads in another thread cannot end the pool under it.
std::shared_ptr<Pool> pool() {
  std::lock_guard lock(pool_mutex);
  if (!the_pool) the_pool = std::make_shared<Pool>(default_threads());
  return the_pool;
}

}  // namespace

InlineScope::InlineScope(bool on) : before_(inside) { inside = before_ || on; }
InlineScope::~InlineScope() { inside = before_; }

int num_threads() { return pool()->threads(); }

void set_num_threads(int count) {
  checked(count, "threads");
  std::lock_guard lock(pool_mutex);
  if (!the_pool || the_pool->threads() != count) the_pool = std::make_shared<Pool>(count);
}

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (inside) return body(0, count);
  const profile::Span span("pool");
  if (count <= grain) return body(0, count);
  std::shared_ptr<Pool> p = pool();
  if (p->threads() == 1) return body(0, count);
  p->run(count, grain, body);
}

}  // namespace statera
