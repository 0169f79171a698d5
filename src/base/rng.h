// Rng: a counter-based generator (splitmix64 over seed and stream), so that element i of a stream does not depend on the
// order or the number of threads that ask for it.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

namespace statera {

constexpr uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// 64-bit FNV-1a of a name: makes a stream per tensor path.
constexpr uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xCBF29CE484222325ull;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return h;
}

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : key_(mix64(seed ^ mix64(stream))) {}
  uint64_t at(uint64_t i) const { return mix64(key_ + i * 0xD1342543DE82EF95ull); }
  uint64_t next() { return at(counter_++); }
  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double uniform_at(uint64_t i) const { return static_cast<double>(at(i) >> 11) * 0x1p-53; }
  // Standard normal number i of the stream (Box-Muller on two draws).
  double normal_at(uint64_t i) const {
    double u = (static_cast<double>(at(2 * i) >> 11) + 1) * 0x1p-53;
    double v = static_cast<double>(at(2 * i + 1) >> 11) * 0x1p-53;
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
  }
  uint64_t counter() const { return counter_; }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace statera
