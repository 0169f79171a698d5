// threads: one pool for everything of ours that runs in parallel (kernels are given row ranges by it).
// Pieces start at multiples of grain. The calling thread takes part. Nested calls run inline. The number of threads never changes results: callers split work
// by fixed chunks, not by thread.
#pragma once

#include <cstdint>
#include <functional>

namespace statera {

// Threads in use: set_num_threads, else STATERA_THREADS, else the CPUs this process may run on (all of the machine: its LOCAL_WORLD_SIZE-th part).
// With STATERA_PIN=1 each but the calling one stays on a CPU of its own.
int num_threads();
void set_num_threads(int count);  // >= 1, else Error(usage)
// Calls body(begin, end) on pieces of [0, count) of at least `grain` items; returns when all are done. The first exception
// of a body is thrown here.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);
// While it lives, parallel_for of the thread that made it runs inline: for threads of which several work side by side already.
class InlineScope {
 public:
  explicit InlineScope(bool on = true);
  ~InlineScope();
  InlineScope(const InlineScope&) = delete;
  InlineScope& operator=(const InlineScope&) = delete;

 private:
  bool before_;
};

}  // namespace statera
