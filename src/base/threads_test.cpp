// How many threads a process takes: by its environment, decided once, so each case is a process of its own.
#include "base/threads.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <utility>

#include "base/error.h"

namespace statera {
namespace {

// Ends with the number of threads as its exit status.
[[noreturn]] void count_with(const char* threads, const char* processes) {
  for (const auto& [name, value] : {std::pair("STATERA_THREADS", threads), std::pair("LOCAL_WORLD_SIZE", processes)}) {
    if (value)
      ::setenv(name, value, 1);
    else
      ::unsetenv(name);
  }
  std::_Exit(num_threads());
}

// Ends with how many of two threads that share a job may run on one CPU alone.
[[noreturn]] void count_bound_with(const char* pin) {
  ::setenv("STATERA_PIN", pin, 1);
  set_num_threads(2);
  std::atomic<int> here{0}, bound{0};
  parallel_for(2, 1, [&](int64_t, int64_t) {
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) == 0) bound += CPU_COUNT(&set) == 1;
    for (++here; here < 2;) ::sched_yield();  // so that one thread does not do both
  });
  std::_Exit(bound);
}

class ThreadsDeathTest : public ::testing::Test {
 protected:
  ThreadsDeathTest() {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) == 0) usable_ = CPU_COUNT(&set);
  }
  // What one of `processes` on this machine takes; one that is bound to some processors already takes those.
  int share(int processes) const { return usable_ < ::sysconf(_SC_NPROCESSORS_ONLN) ? usable_ : std::max(1, usable_ / processes); }
  int usable_ = 1;
};

TEST_F(ThreadsDeathTest, OneProcessTakesEveryProcessorItMayUse) { EXPECT_EXIT(count_with(nullptr, nullptr), ::testing::ExitedWithCode(usable_), ""); }

TEST_F(ThreadsDeathTest, ProcessesOfOneMachineShareIt) {
  EXPECT_EXIT(count_with(nullptr, "2"), ::testing::ExitedWithCode(share(2)), "");
  EXPECT_EXIT(count_with(nullptr, "4096"), ::testing::ExitedWithCode(share(4096)), "");
}

TEST_F(ThreadsDeathTest, TheUsersWordGoesBeforeBoth) { EXPECT_EXIT(count_with("3", "2"), ::testing::ExitedWithCode(3), ""); }

TEST_F(ThreadsDeathTest, WorkersAreBoundWhenAskedTo) {
  if (usable_ < 2) GTEST_SKIP() << "one CPU alone";
  EXPECT_EXIT(count_bound_with("0"), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(count_bound_with("1"), ::testing::ExitedWithCode(1), "");
  const int before = num_threads();
  ::setenv("STATERA_PIN", "on", 1);
  EXPECT_THROW(set_num_threads(before + 1), Error);
  ::unsetenv("STATERA_PIN");
  EXPECT_EQ(num_threads(), before);
}

}  // namespace
}  // namespace statera
