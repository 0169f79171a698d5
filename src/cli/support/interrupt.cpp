// See interrupt.h. The handler does nothing but set a lock-free flag or _exit.
#include "cli/support/interrupt.h"

#include <signal.h>
#include <unistd.h>

namespace statera {
namespace {

std::atomic<bool> flag{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int number) {
  if (flag.exchange(true)) ::_exit(128 + number);
}

}  // namespace

std::atomic<bool>& interrupt_flag() { return flag; }

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void ignore_broken_pipe() { ::signal(SIGPIPE, SIG_IGN); }

}  // namespace statera
