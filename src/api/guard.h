// guard: the border between LibTorch's exceptions and ours, around the bodies of api/.
#pragma once

#include <utility>

namespace statera {

// Called inside a catch block. Memory that cannot be had becomes Error(memory); everything else LibTorch throws is a mistake of ours:
// a Bug with its first line, the backtrace goes to the log. Other exceptions go on as they are.
[[noreturn]] void rethrow_translated();

template <class F>
decltype(auto) guarded(F&& f) {
  try {
    return std::forward<F>(f)();
  } catch (...) {
    rethrow_translated();
  }
}

}  // namespace statera
