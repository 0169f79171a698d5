// peak: what this machine can do at best, for saying how near a kernel comes: multiply-adds that stay in registers, and a plain read of
// memory. Computes nothing anyone needs. An instruction set implements a Table.
#pragma once

#include <cstdint>

namespace statera::kernels::peak {

enum class Kind { fp32, bf16, int8 };
inline constexpr Kind kKinds[] = {Kind::fp32, Kind::bf16, Kind::int8};

struct Peak {
  Kind kind;
  const char* instruction;  // "vfmadd231ps zmm"
  const char* needs;        // a feature beyond the set (cpu_has); null: none
  int64_t multiply_adds;    // of one round
  // Independent chains of the instruction on ones, all in registers. Returns the sum of all accumulators: rounds * multiply_adds exactly,
  // for 0 <= rounds <= kMaxRounds.
  double (*run)(int64_t rounds) noexcept;
};
inline constexpr int64_t kMaxRounds = int64_t{1} << 19;  // accumulators in fp32 count to 2^24

// xor of the 64-bit words of data, which is 64-byte aligned; bytes a multiple of kReadStep.
inline constexpr int64_t kReadStep = 1024;

struct Table {
  uint64_t (*read)(const void* data, int64_t bytes) noexcept;
  const Peak* peaks;  // the best of a kind first
  int count;
};
extern const Table kScalar, kAvx2, kAvx512, kAmx;

// The best of a kind among what the active set has and this machine can run; null: it has no such instruction.
const Peak* find(Kind kind) noexcept;
uint64_t read(const void* data, int64_t bytes) noexcept;
const char* kind_name(Kind kind) noexcept;

}  // namespace statera::kernels::peak
