// See heap.h.
#include "base/heap.h"

#include <malloc.h>

namespace statera {

void return_freed_memory() {
#ifdef M_ARENA_MAX
  ::mallopt(M_ARENA_MAX, 2);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

}  // namespace statera
