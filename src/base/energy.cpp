// See energy.h.
#include "base/energy.h"

#include <filesystem>
#include <fstream>

namespace statera {
namespace {

template <class T>
std::optional<T> read_value(const std::string& path) {
  std::ifstream in(path);
  T value{};
  if (in >> value) return value;
  return std::nullopt;
}

}  // namespace

EnergyMeter::EnergyMeter(const std::string& root) {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(root, ec)) {
    const std::string folder = entry.path().string();
    // Parts of a package (cores, memory) have a second colon; "psys" counts packages again.
    const std::string name = read_value<std::string>(folder + "/name").value_or("");
    if (!name.starts_with("package")) continue;
    const auto now = read_value<uint64_t>(folder + "/energy_uj");
    if (now) packages_.push_back({folder + "/energy_uj", *now, read_value<uint64_t>(folder + "/max_energy_range_uj").value_or(0)});
  }
}

std::optional<double> EnergyMeter::lap() {
  if (packages_.empty()) return std::nullopt;
  double microjoules = 0;
  for (Package& p : packages_) {
    const auto now = read_value<uint64_t>(p.counter);
    if (!now || (*now < p.last && p.range == 0)) return std::nullopt;
    microjoules += static_cast<double>(*now >= p.last ? *now - p.last : *now + (p.range - p.last));
    p.last = *now;
  }
  return microjoules * 1e-6;
}

}  // namespace statera
