// guard: the border between LibTorch's exceptions and ours, used by the .cpp files of api/. Includes c10; no header of api/ does.
#pragma once

#include <c10/util/Exception.h>

#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace statera {

// Memory that cannot be had is Error(memory); everything else LibTorch throws is a mistake of ours: a Bug with its first line, the
// backtrace goes to the log.
template <class F>
decltype(auto) guarded(F&& f) {
  try {
    return std::forward<F>(f)();
  } catch (const c10::OutOfMemoryError& e) {
    throw Error(ErrorKind::memory, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    std::string what = e.what_without_backtrace();
    if (what.find("DefaultCPUAllocator") != what.npos) throw Error(ErrorKind::memory, what.substr(0, what.find('\n')));
    log_debug(e.what());
    throw Bug("tensor library: " + what.substr(0, what.find('\n')));
  }
}

}  // namespace statera
