// heap: how the C library's allocator keeps freed memory. Streaming work allocates large buffers on several threads; left alone, each thread's
// arena keeps what it freed, and the peak grows to several times what is in use.
#pragma once

namespace statera {

// From now on at most two arenas, and freed memory goes back to the system beyond 1 MiB. For the whole process; costs page faults, so not
// for inference. Does nothing where the C library has no such settings.
void return_freed_memory();

}  // namespace statera
