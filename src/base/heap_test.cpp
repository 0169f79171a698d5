// Laws of the memory that weights lie in.
#include "base/heap.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

namespace statera {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Resident bytes of this process.
uint64_t resident() {
  unsigned long long all = 0, there = 0;
  std::FILE* f = std::fopen("/proc/self/statm", "r");
  if (f) {
    EXPECT_EQ(std::fscanf(f, "%llu %llu", &all, &there), 2);
    std::fclose(f);
  }
  return there * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

struct Piece {
  std::shared_ptr<void> memory;
  uint64_t bytes;
  unsigned char mark;
  unsigned char* at(uint64_t i) const { return static_cast<unsigned char*>(memory.get()) + i; }
  bool holds(unsigned char value) const {
    for (uint64_t i = 0; i < bytes; ++i)
      if (*at(i) != value) return false;
    return true;
  }
};

TEST(LargeMemory, PiecesAreAlignedZeroAndApart) {
  std::vector<Piece> pieces;
  unsigned char mark = 1;
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{0}, uint64_t{63}, 3 * kMiB + 5, 40 * kMiB + 1, uint64_t{64}, 70 * kMiB, 23 * kMiB, uint64_t{777}}) {
    pieces.push_back({large_memory(bytes), bytes, mark++});
    const Piece& p = pieces.back();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p.memory.get()) % 64, 0u) << bytes;
    EXPECT_TRUE(p.holds(0)) << bytes;
    std::memset(p.memory.get(), p.mark, p.bytes);
  }
  for (const Piece& p : pieces) EXPECT_TRUE(p.holds(p.mark)) << p.bytes;
}

TEST(LargeMemory, SmallPiecesFollowOneAnother) {
  const auto first = large_memory(1000), second = large_memory(1000);
  EXPECT_EQ(static_cast<char*>(second.get()) - static_cast<char*>(first.get()), 1024);
}

TEST(LargeMemory, GoesBackWithTheLastPieceOfAChunk) {
  std::vector<std::shared_ptr<void>> pieces;
  const uint64_t before = resident();
  for (int i = 0; i < 200; ++i) {
    pieces.push_back(large_memory(kMiB));
    std::memset(pieces.back().get(), 1, kMiB);
  }
  const uint64_t most = resident();
  EXPECT_GT(most, before + 190 * kMiB);
  pieces.resize(1);  // keeps its own chunk of 64
  EXPECT_LT(resident(), most - 130 * kMiB);
  pieces.clear();
  EXPECT_LT(resident(), most - 190 * kMiB);
}

}  // namespace
}  // namespace statera
