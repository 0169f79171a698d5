// Energy counters by files that look like powercap's.
#include "base/energy.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/test_files.h"

namespace statera {
namespace {

void write_domain(const std::string& folder, const std::string& name, const std::string& energy, const std::string& range = "1000000000") {
  std::filesystem::create_directories(folder);
  write_text(folder + "/name", name + "\n");
  write_text(folder + "/energy_uj", energy + "\n");
  write_text(folder + "/max_energy_range_uj", range + "\n");
}

TEST(Energy, PackagesAreAddedAndTheirPartsAreNot) {
  TempDir dir;
  write_domain(dir / "intel-rapl:0", "package-0", "1000000");
  write_domain(dir / "intel-rapl:1", "package-1", "5000000");
  write_domain(dir / "intel-rapl:0:0", "core", "7000000");
  write_domain(dir / "intel-rapl:2", "psys", "9000000");
  EnergyMeter meter{dir};
  ASSERT_TRUE(meter.available());
  write_domain(dir / "intel-rapl:0", "package-0", "3000000");
  write_domain(dir / "intel-rapl:1", "package-1", "5500000");
  write_domain(dir / "intel-rapl:0:0", "core", "8000000");
  EXPECT_DOUBLE_EQ(meter.lap().value(), 2.5);
  EXPECT_DOUBLE_EQ(meter.lap().value(), 0);
}

TEST(Energy, ACounterThatWrapsIsPutRight) {
  TempDir dir;
  write_domain(dir / "intel-rapl:0", "package-0", "9000000", "10000000");
  EnergyMeter meter{dir};
  write_domain(dir / "intel-rapl:0", "package-0", "500000", "10000000");
  EXPECT_DOUBLE_EQ(meter.lap().value(), 1.5);
}

TEST(Energy, AMachineThatDoesNotTellHasNone) {
  TempDir dir;
  EnergyMeter none(dir / "absent");
  EXPECT_FALSE(none.available());
  EXPECT_FALSE(none.lap().has_value());
  write_domain(dir / "intel-rapl:0", "package-0", "unreadable");
  EXPECT_FALSE(EnergyMeter{dir}.available());
}

}  // namespace
}  // namespace statera
