// The pool is libgomp's, entered through its C ABI (GOMP_parallel): ATen's operators run on the same threads, so there is one
// pool in the process and no two sets of workers spin against each other.
#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "base/error.h"

extern "C" void GOMP_parallel(void (*body)(void*), void* data, unsigned num_threads, unsigned flags);

namespace statera {
namespace {

thread_local bool inside = false;
std::atomic<int> wanted{0};

int checked(int count, const char* what) {
  if (count < 1 || count > 1024) {
    throw Error(ErrorKind::usage, std::string(what) + " must be between 1 and 1024, is " + std::to_string(count));
  }
  return count;
}

int default_threads() {
  if (const char* wish = std::getenv("STATERA_THREADS")) return checked(std::atoi(wish), "STATERA_THREADS");
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

struct Job {
  const std::function<void(int64_t, int64_t)>& body;
  int64_t count, chunk;
  std::atomic<int64_t> next{0};
  std::mutex mutex{};
  std::exception_ptr fault{};

  void take() {
    inside = true;
    while (true) {
      int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
      if (begin >= count) break;
      try {
        body(begin, std::min(begin + chunk, count));
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!fault) fault = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
    inside = false;
  }
};

}  // namespace

int num_threads() {
  int n = wanted.load(std::memory_order_relaxed);
  if (n == 0) wanted.store(n = default_threads());
  return n;
}

void set_num_threads(int count) { wanted.store(checked(count, "threads")); }

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  int threads = num_threads();
  if (inside || count <= grain || threads == 1) return body(0, count);
  // Several pieces per thread even out uneven pieces; whole multiples of grain keep block-aligned callers aligned.
  int64_t pieces = threads * 4;
  int64_t chunk = std::max(grain, (count / pieces + grain - 1) / grain * grain);
  Job job{body, count, chunk};
  GOMP_parallel([](void* j) { static_cast<Job*>(j)->take(); }, &job, static_cast<unsigned>(threads), 0);
  if (job.fault) std::rethrow_exception(job.fault);
}

}  // namespace statera
