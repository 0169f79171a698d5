// heap: the memory of this machine, and how the C library's allocator keeps freed memory. Streaming work allocates large buffers on several threads; left alone, each thread's
// arena keeps what it freed, and the peak grows to several times what is in use.
#pragma once

#include <cstdint>
#include <memory>

namespace statera {

// From now on at most two arenas, and freed memory goes back to the system beyond 1 MiB. For the whole process; costs page faults, so not
// for inference. Does nothing where the C library has no such settings.
void return_freed_memory();

// Bytes that this process may hope for: the machine's, or less where its control group says so. 0: unknown.
uint64_t memory_of_machine();

// Large tensors lie in huge pages where the system offers them: far fewer page faults for temporaries. Before the first tensor; a setting of
// the environment stays.
void use_huge_pages();

// Memory of `bytes`, zeros, at a multiple of 64; std::bad_alloc when there is none. For what is kept: weights. Small ones lie together in huge pages
// where the system offers them, whatever their size, and go back to the system when the last of those that share a chunk of 64 MiB goes.
std::shared_ptr<void> large_memory(uint64_t bytes);

}  // namespace statera
