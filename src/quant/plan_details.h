// What a plan says beyond sizes: every tensor of the output with its precision, how long the work will take, what a server would refuse.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace statera {

struct PlanDetails {
  struct Tensor {
    std::string name, dtype, role;  // on-disk name; safetensors' type; role of the layer or parameter it belongs to
    std::vector<int64_t> shape;
    uint64_t bytes = 0;
    std::string precision;  // "4 bits, groups of 128, symmetric" of a quantized layer's tensors; else the type
    bool quantized = false;
  };
  // Two rates measured on this machine for a fraction of a second, and the work counted with them.
  struct Time {
    double seconds = 0;
    double weights_per_second = 0;       // rounded to nearest
    double operations_per_second = 0;    // of a matrix product, multiply and add counted apart
    double weights = 0, operations = 0;  // of the run
  };
  std::vector<Tensor> tensors;
  Time time;
  uint64_t disk_bytes = 0;  // at the fullest moment
  std::vector<std::pair<std::string, std::string>> refusals;  // target, reason

  Json to_json() const;
  // Lines for a person: precisions by role, time, disk.
  std::string to_text() const;
};

}  // namespace statera
