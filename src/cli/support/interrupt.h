// interrupt: Ctrl-C as a flag. The first one sets it (long work looks at it and stops in order), the second while it is still
// set ends the process. Not for libraries: they are handed the flag.
#pragma once

#include <atomic>

namespace statera {

std::atomic<bool>& interrupt_flag();
// Installs the handlers of SIGINT and SIGTERM; system calls that wait return EINTR.
void catch_interrupts();
// A closed pipe becomes EPIPE instead of a signal.
void ignore_broken_pipe();

}  // namespace statera
