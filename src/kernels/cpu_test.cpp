// The choice of an instruction set: supported ones can be forced, others are refused by name.
#include "kernels/cpu.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <stdexcept>

namespace statera::kernels {
namespace {

TEST(Cpu, ForcingASupportedIsaMakesItActive) {
  for (Isa isa : kAllIsas) {
    if (!isa_supported(isa)) {
      std::printf("  skipped: this machine does not support %s\n", std::string(isa_name(isa)).c_str());
      EXPECT_THROW(set_isa(isa), std::runtime_error);
      continue;
    }
    set_isa(isa);
    EXPECT_EQ(active_isa(), isa);
  }
  set_isa(std::nullopt);
}

TEST(Cpu, SupportIsDownwardClosed) {
  EXPECT_TRUE(isa_supported(Isa::scalar));
  for (int i = 1; i < 4; ++i) EXPECT_LE(isa_supported(kAllIsas[i]), isa_supported(kAllIsas[i - 1]));
}

TEST(Cpu, AnUnknownNameInTheEnvironmentIsNamed) {
  // The choice is made once a process, so a child does that begins anew.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("STATERA_ISA", "avx9", 1);
        try {
          active_isa();
        } catch (const std::runtime_error& e) {
          std::fputs(e.what(), stderr);
          std::exit(7);
        }
        std::exit(0);
      },
      testing::ExitedWithCode(7), "STATERA_ISA=avx9: unknown");
}

TEST(Cpu, TheEnvironmentForcesAnIsa) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("STATERA_ISA", "scalar", 1);
        std::exit(active_isa() == Isa::scalar ? 7 : 0);
      },
      testing::ExitedWithCode(7), "");
}

TEST(Cpu, DescriptionNamesTheActiveSet) {
  EXPECT_NE(cpu_description().find("using " + std::string(isa_name(active_isa()))), std::string::npos);
}

}  // namespace
}  // namespace statera::kernels
