// Random elements of a tensor by position: a hash of (seed, name, index) made roughly normal. No state, so any range can be filled by
// any thread. The normal is a sum of four 16-bit uniforms (Irwin-Hall, deviation 1, cut at 3.46): cheap, and close enough for weights.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/rng.h"

namespace statera {

// Mean and deviation of a random parameter, by its form.
struct Spread {
  float mean = 0, deviation = 0;
};

// Norm weights are 1, biases and tables are small, matrices have the standard deviation 1/sqrt(inputs). linear: the weight of a linear layer.
inline Spread spread_of(std::string_view name, const std::vector<int64_t>& shape, bool linear) {
  const size_t dims = shape.size();
  if (dims <= 1) return name.ends_with(".bias") ? Spread{0, 0.02f} : Spread{1, 0};
  if (dims == 2 && !linear) return {0, 0.02f};  // embeddings, position tables
  double inputs = 1;
  for (size_t d = dims == 3 ? 2 : 1; d < dims; ++d) inputs *= static_cast<double>(shape[d]);  // [E, out, in] or [out, kernel...]
  return {0, static_cast<float>(1 / std::sqrt(inputs))};
}

class RandomFill {
 public:
  RandomFill(uint64_t seed, std::string_view name) : key_(mix64(seed ^ mix64(hash_name(name)))) {}
  // Element i of the stream, mean 0, deviation 1.
  float at(uint64_t i) const {
    const uint64_t h = mix64(key_ + i * 0xD1342543DE82EF95ull);
    const auto sum = static_cast<int64_t>((h & 0xFFFF) + (h >> 16 & 0xFFFF) + (h >> 32 & 0xFFFF) + (h >> 48));
    // Four uniforms on 0..65535: mean 131070, variance 4 * (65536^2 - 1) / 12.
    return static_cast<float>(sum - 131070) * 2.6428735e-05f;
  }
  // out[j] = mean + deviation * element (begin + j).
  template <class T>
  void fill(T* out, uint64_t begin, uint64_t count, float mean, float deviation) const {
    for (uint64_t j = 0; j < count; ++j) out[j] = static_cast<T>(mean + deviation * at(begin + j));
  }

 private:
  uint64_t key_;
};

}  // namespace statera
