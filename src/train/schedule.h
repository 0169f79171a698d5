// schedule: the learning rate over the steps, by transformers' formulas: a linear warm-up, then constant, linear or cosine.
#pragma once

#include <cstdint>
#include <string>

namespace statera {

struct Schedule {
  std::string kind = "cosine";  // cosine, linear, constant
  int64_t warmup = 0, total = 1;  // steps
  // Factor of the learning rate at a step counted from 0.
  double factor(int64_t step) const;
};

// Error(usage) for an unknown name.
void check_schedule(const std::string& kind);

}  // namespace statera
