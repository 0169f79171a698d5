// Every peak does as many multiply-adds as it says, and every read sees every word.
#include "kernels/peak/peak.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/isa_test.h"

namespace statera::kernels::peak {
namespace {

TEST(Peak, ARoundIsAsManyMultiplyAddsAsItsTableSays) {
  for_each_isa([] {
    for (Kind kind : kKinds) {
      const Peak* p = find(kind);
      if (!p) {
        std::printf("  skipped: no %s instruction here\n", kind_name(kind));
        continue;
      }
      SCOPED_TRACE(p->instruction);
      for (int64_t rounds : {int64_t{0}, int64_t{1}, int64_t{1000}, kMaxRounds})
        EXPECT_EQ(p->run(rounds), static_cast<double>(rounds * p->multiply_adds));
    }
  });
}

TEST(Peak, EveryMachineHasOneForFp32AndOneForInt8) {
  for_each_isa([] {
    EXPECT_NE(find(Kind::fp32), nullptr);
    EXPECT_NE(find(Kind::int8), nullptr);
  });
}

TEST(Peak, EveryEntryThatRunsHereCountsRight) {
  const auto all = [](const Table& t, Isa isa) {
    if (!isa_supported(isa)) return;
    for (int i = 0; i < t.count; ++i) {
      SCOPED_TRACE(t.peaks[i].instruction);
      if (t.peaks[i].needs && !cpu_has(t.peaks[i].needs)) continue;
      EXPECT_EQ(t.peaks[i].run(33), static_cast<double>(33 * t.peaks[i].multiply_adds));
    }
  };
  all(kScalar, Isa::scalar);
  all(kAvx2, Isa::avx2);
  all(kAvx512, Isa::avx512);
  all(kAmx, Isa::amx);
}

TEST(Peak, AReadIsTheXorOfAllWords) {
  constexpr int64_t kBytes = 5 * kReadStep;
  alignas(64) static uint64_t words[kBytes / 8];
  for (int64_t i = 0; i < kBytes / 8; ++i) words[i] = static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15ull;
  for_each_isa([&] {
    EXPECT_EQ(read(words, kBytes), kScalar.read(words, kBytes));
    EXPECT_EQ(read(words, 0), 0u);
    for (int64_t i : {int64_t{0}, int64_t{77}, kBytes / 8 - 1}) {
      const uint64_t before = read(words, kBytes);
      words[i] ^= 0x10;
      EXPECT_EQ(read(words, kBytes), before ^ 0x10) << i;
    }
  });
}

TEST(Cpu, AnUnknownFeatureIsAbsent) { EXPECT_FALSE(cpu_has("avx9")); }

}  // namespace
}  // namespace statera::kernels::peak
