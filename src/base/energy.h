// energy: what the processors of this machine used, by the RAPL counters that Linux shows under powercap. The whole machine's processors,
// not this process alone; absent in most virtual machines, and readable by root only in most others.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace statera {

class EnergyMeter {
 public:
  // root: where the counters are, one folder "intel-rapl:N" a package (AMD's too). Those that cannot be read are left out.
  explicit EnergyMeter(const std::string& root = "/sys/class/powercap");
  bool available() const { return !packages_.empty(); }
  // Joules of all packages since the last call (or construction); none where the machine does not tell. A counter that wrapped once is
  // put right.
  std::optional<double> lap();

 private:
  struct Package {
    std::string counter;
    uint64_t last = 0, range = 0;  // microjoules; range 0: unknown
  };
  std::vector<Package> packages_;
};

}  // namespace statera
