// A random weight matrix, packed, and what it holds: for the tests of the ops that read qgemm's layout.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "kernels/qgemm/qgemm.h"

namespace statera::kernels::qgemm {

struct Case {
  Spec spec;
  std::vector<uint8_t> codes, zeros;
  std::vector<float> scales;
  std::vector<uint64_t> packed;  // 8-byte words

  // Without a scale, scales are random.
  Case(Spec s, unsigned seed, float scale = 0) : spec(s) {
    std::mt19937 rng(seed);
    codes.resize(s.n * s.k);
    for (auto& c : codes) c = static_cast<uint8_t>(rng() & ((1u << s.bits) - 1));
    scales.resize(s.n * group_count(s));
    for (auto& v : scales) {
      if (scale != 0) {
        v = scale;
        continue;
      }
      v = std::uniform_real_distribution<float>(0.001f, 0.02f)(rng);
      if (s.scale == ScaleType::bf16 || s.scale == ScaleType::f16) {  // 7 bits of fraction, inside f16's normal range
        uint32_t bits;
        std::memcpy(&bits, &v, 4);
        bits &= 0xffff0000;
        std::memcpy(&v, &bits, 4);
      }
    }
    if (s.zeros) {
      zeros.resize(scales.size());
      for (auto& z : zeros) z = static_cast<uint8_t>(rng() & ((1u << s.bits) - 1));
    }
    packed.resize(packed_bytes(s) / 8);
    pack(s, codes.data(), scales.data(), s.zeros ? zeros.data() : nullptr, packed.data());
  }

  int64_t group(int64_t n, int64_t k) const { return n * group_count(spec) + k / group_size(spec); }
  int integer(int64_t n, int64_t k) const { return codes[n * spec.k + k] - (spec.zeros ? zeros[group(n, k)] : 1 << (spec.bits - 1)); }
  float weight(int64_t n, int64_t k) const { return static_cast<float>(integer(n, k)) * scales[group(n, k)]; }
};

}  // namespace statera::kernels::qgemm
