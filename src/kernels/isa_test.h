// What the kernel tests share: normal numbers and the loop over instruction sets, which says what this machine lacks.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu.h"

namespace statera::kernels {

inline std::vector<float> normal(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> d;
  std::vector<float> v(count);
  for (auto& x : v) x = d(rng);
  return v;
}

// Runs body once under every supported set.
template <class F>
void for_each_isa(F body) {
  for (Isa isa : kAllIsas) {
    if (!isa_supported(isa)) {
      std::printf("  skipped: this machine does not support %s\n", std::string(isa_name(isa)).c_str());
      continue;
    }
    SCOPED_TRACE(std::string(isa_name(isa)));
    set_isa(isa);
    body();
    set_isa(std::nullopt);
  }
}

}  // namespace statera::kernels
