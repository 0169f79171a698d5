// See guard.h.
#include "api/guard.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/log.h"

namespace statera {

void rethrow_translated() {
  try {
    throw;
  } catch (const c10::Error& e) {
    std::string what = e.what_without_backtrace();
    what.resize(std::min(what.size(), what.find('\n')));
    if (dynamic_cast<const c10::OutOfMemoryError*>(&e) || what.find("DefaultCPUAllocator") != what.npos)
      throw Error(ErrorKind::memory, what);
    log_debug(e.what());
    throw Bug("tensor library: " + what);
  }
}

}  // namespace statera
