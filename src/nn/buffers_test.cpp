// Which memory a new tensor gets.
#include "nn/buffers.h"

#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace statera {
namespace {

at::Tensor megabytes(int64_t count) { return at::empty({count << 18}, at::kFloat); }

TEST(KeptBuffers, ATensorGetsTheMemoryOfTheLastOneOfItsSize) {
  const KeptBuffers kept(16 << 20);
  at::Tensor a = megabytes(4), b = megabytes(4);
  const void *first = a.const_data_ptr(), *second = b.const_data_ptr();
  a.reset();
  b.reset();
  const at::Tensor other = megabytes(5), c = megabytes(4), d = megabytes(4);
  EXPECT_EQ(c.const_data_ptr(), second);
  EXPECT_EQ(d.const_data_ptr(), first);
}

TEST(KeptBuffers, KeptAndUsedTogetherStayWithinTheMostThatWasUsedAndTheAllowance) {
  const uint64_t mib = uint64_t{1} << 20;
  const KeptBuffers kept(4 * mib);
  std::vector<at::Tensor> now;
  for (int64_t size : {4, 5, 6}) now.push_back(megabytes(size));
  EXPECT_EQ(kept.bytes(), 0u);
  now.clear();
  EXPECT_EQ(kept.bytes(), 15 * mib);
  now.push_back(megabytes(7));  // 7 used, 15 + 4 - 7 may be kept
  EXPECT_EQ(kept.bytes(), 11 * mib);
  now.push_back(megabytes(8));
  EXPECT_EQ(kept.bytes(), 0u);
  now.clear();
  EXPECT_EQ(kept.bytes(), 15 * mib);
}

TEST(KeptBuffers, WithoutAnAllowanceMemoryOfThePeakIsUsedAgain) {
  const uint64_t mib = uint64_t{1} << 20;
  const KeptBuffers kept(0);
  megabytes(4);
  EXPECT_EQ(kept.bytes(), 4 * mib);
  at::Tensor now = megabytes(3);  // with the 4 it would be 7
  EXPECT_EQ(kept.bytes(), 0u);
  now.reset();
  EXPECT_EQ(kept.bytes(), 3 * mib);
}

TEST(KeptBuffers, AllowancesOfSeveralAddUpAndTheLastOneLetsGo) {
  const uint64_t mib = uint64_t{1} << 20;
  auto one = std::make_unique<KeptBuffers>(2 * mib), two = std::make_unique<KeptBuffers>(3 * mib);
  megabytes(9);  // used and gone
  EXPECT_EQ(two->bytes(), 9 * mib);
  const at::Tensor now = megabytes(4);  // 9 + 2 + 3 - 4 may be kept
  EXPECT_EQ(two->bytes(), 9 * mib);
  one.reset();
  EXPECT_EQ(two->bytes(), 0u);  // 9 + 3 - 4 are fewer than 9
  megabytes(5);
  EXPECT_EQ(two->bytes(), 5 * mib);
  two.reset();
  EXPECT_EQ(KeptBuffers(0).bytes(), 0u);
}

TEST(KeptBuffers, TensorsMayOutliveItAndEndOnOtherThreads) {
  at::Tensor a;
  {
    const KeptBuffers kept(8 << 20);
    a = megabytes(2);
  }
  std::thread([gone = std::move(a)]() mutable { gone.reset(); }).join();
  const KeptBuffers kept(8 << 20);
  at::Tensor b = megabytes(2);
  const void* data = b.const_data_ptr();
  b.reset();
  EXPECT_EQ(megabytes(2).const_data_ptr(), data);
}

TEST(KeptBuffers, LibrariesMayTakeMemoryByItsAddress) {
  const KeptBuffers kept(8 << 20);
  for (const size_t bytes : {size_t{100}, size_t{3} << 20}) {
    void* memory = c10::GetCPUAllocator()->raw_allocate(bytes);
    std::memset(memory, 1, bytes);
    c10::GetCPUAllocator()->raw_deallocate(memory);
  }
  EXPECT_EQ(kept.bytes(), uint64_t{3} << 20);
}

}  // namespace
}  // namespace statera
