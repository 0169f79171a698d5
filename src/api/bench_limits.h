// bench_limits: what this machine can do at best: bytes read from memory and multiply-adds in registers, a second, by one thread and by
// all, measured now with the program's own thread pool. The yardstick of `statera bench`; no model here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace statera {

struct Summary {
  double min = 0, median = 0, max = 0;
  Json to_json() const;
};
// Of nothing: zeros.
Summary summary_of(std::vector<double> values);

struct MachineLimits {
  struct Rate {
    Summary one, all;  // threads
    // A limit is the best that was seen.
    double best() const { return one.max > all.max ? one.max : all.max; }
  };
  struct Compute {
    std::string kind, instruction;  // fp32, bf16 or int8
    Rate flop;                      // operations a second; a multiply-add is two
  };
  int threads = 1;
  int64_t buffer_bytes = 0;
  Rate read;  // bytes a second
  std::vector<Compute> compute;

  double bandwidth() const { return read.best(); }
  // Operations a second of a kind; 0 where the machine has no instruction for it.
  double peak(std::string_view kind) const;
  // The best peak that weights of so many bits allow: int8 up to 10 bits (scales included), bf16 up to 20, fp32 above, or for operators
  // without weights (0 bits); the next wider kind where the machine lacks one.
  double peak_for(double bits_per_weight) const;
  Json to_json() const;
};

// buffer_bytes: read for the bandwidth; 0: four times the last cache, at least 512 MiB, at most a quarter of the memory. Takes some seconds.
MachineLimits measure_limits(int64_t buffer_bytes = 0, int repeats = 5);

}  // namespace statera
