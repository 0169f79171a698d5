// See state_codes.h.
#include "train/state_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

constexpr uint32_t kFirstCell = 103u << 7;  // upper half of 2^-24

const Magnitudes& first_moments() {
  static const Magnitudes table(7);
  return table;
}

const Magnitudes& second_moments() {
  static const Magnitudes table(8);
  return table;
}

float chance_of(uint64_t draw) { return static_cast<float>(draw & 0xFFFFFF) * 0x1p-24f; }

float largest(const float* x, int64_t n) {
  float out = 0;
  for (int64_t i = 0; i < n; ++i) out = std::max(out, std::fabs(x[i]));
  return out;
}

// A reciprocal would overflow for the least scales.
float of_scale(float x, float scale) { return scale > 0 ? x / scale : 0; }

}  // namespace

StateBits parse_state_bits(const std::string& name) {
  if (name == "fp32") return StateBits::fp32;
  if (name == "bf16") return StateBits::bf16;
  if (name == "8bit") return StateBits::eight;
  throw Error(ErrorKind::usage, "--optim-states must be fp32, bf16 or 8bit, is \"" + name + "\"" + did_you_mean(name, {"fp32", "bf16", "8bit"}));
}

Magnitudes::Magnitudes(int bits) : size_(1 << bits) {
  int at = 0;
  values_[static_cast<size_t>(at++)] = 0;
  if (bits == 8) values_[static_cast<size_t>(at++)] = 1e-7f;  // a code that seven decades leave
  for (int decade = 0; decade < 7; ++decade) {
    const int count = 1 << (decade + bits - 7);
    for (int j = 1; j <= count; ++j)
      values_[static_cast<size_t>(at++)] = static_cast<float>(std::pow(10.0, decade - 6) * (0.1 + 0.9 * j / count));
  }
  check(at == size_ && values_[static_cast<size_t>(size_) - 1] == 1, "codes end at 1");
  values_[static_cast<size_t>(size_)] = 2;
  for (size_t cell = 0; cell < below_.size(); ++cell) {
    const float edge = std::bit_cast<float>(static_cast<uint32_t>(kFirstCell + cell) << 16);
    below_[cell] = static_cast<uint8_t>(std::upper_bound(values_.begin(), values_.begin() + size_, edge) - values_.begin() - 1);
  }
}

unsigned Magnitudes::code(float x, float chance) const {
  const uint32_t cell = std::bit_cast<uint32_t>(x) >> 16;
  unsigned c = cell < kFirstCell ? 0 : below_[std::min<size_t>(cell - kFirstCell, below_.size() - 1)];
  if (x >= values_[c + 1]) ++c;  // no cell holds two
  const float low = values_[c];
  return x - low > chance * (values_[c + 1] - low) ? c + 1 : c;
}

float encode_first(const float* m, int64_t n, uint8_t* codes) {
  const float scale = largest(m, n);
  const Magnitudes& table = first_moments();
  for (int64_t i = 0; i < n; ++i) {
    const unsigned magnitude = table.code(of_scale(std::fabs(m[i]), scale), 0.5f);
    codes[i] = static_cast<uint8_t>(magnitude | (m[i] < 0 ? 128u : 0u));
  }
  return scale;
}

float encode_second(const float* v, const uint64_t* draws, int64_t n, uint8_t* codes) {
  const float scale = largest(v, n);
  const Magnitudes& table = second_moments();
  for (int64_t i = 0; i < n; ++i) {
    const unsigned magnitude = table.code(std::sqrt(of_scale(v[i], scale)), chance_of(draws[i]));
    codes[i] = static_cast<uint8_t>(v[i] > 0 ? std::max(magnitude, 1u) : magnitude);
  }
  return scale;
}

void decode_first(const uint8_t* codes, float scale, int64_t n, float* m) {
  const Magnitudes& table = first_moments();
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = table.value(codes[i] & 127u) * scale;
    m[i] = codes[i] & 128u ? -magnitude : magnitude;
  }
}

void decode_second(const uint8_t* codes, float scale, int64_t n, float* v) {
  const Magnitudes& table = second_moments();
  for (int64_t i = 0; i < n; ++i) v[i] = table.value(codes[i]) * table.value(codes[i]) * scale;
}

}  // namespace statera
