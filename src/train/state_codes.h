// state_codes: AdamW's moments in 16 and 8 bits. First moments, which move by a tenth a step, round to the nearest. Second moments round to
// one of their two neighbours by chance, in proportion: they move by a thousandth a step and would stand still otherwise. The chance is a
// function of a name, the step and the element.
// 8 bits: blocks of 256 elements in storage order share a scale, their largest magnitude (f32). A code stands for a magnitude from 0 to 1
// after the dynamic tree of Dettmers et al. 2022: 0, and in each decade from 1e-7 to 1 evenly spaced ones up to its end, twice as many as in
// the decade below. differs: second moments are coded by their roots, whose range is half as wide in decades, and never as 0.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace statera {

enum class StateBits { fp32, bf16, eight };
// "fp32", "bf16" or "8bit"; Error(usage) for another.
StateBits parse_state_bits(const std::string& name);

constexpr int64_t kStateBlock = 256;

// A magnitude in [0, 1] as a number of `bits`: 7 for first moments, whose 8th is the sign, 8 for second ones.
class Magnitudes {
 public:
  explicit Magnitudes(int bits);
  float value(unsigned code) const { return values_[code]; }
  int size() const { return size_; }
  // The neighbour above x when chance (in [0, 1)) is below x's place between the two, else the one below.
  unsigned code(float x, float chance) const;

 private:
  int size_;
  std::array<float, 257> values_;     // rising; one more behind the last
  std::array<uint8_t, 24 * 128 + 1> below_;  // by the upper 16 bits of a float in [2^-24, 1]: the last code at or below
};

// Up to 256 moments to codes and back; codes' scale is returned. draws: one per element.
float encode_first(const float* m, int64_t n, uint8_t* codes);
float encode_second(const float* v, const uint64_t* draws, int64_t n, uint8_t* codes);
void decode_first(const uint8_t* codes, float scale, int64_t n, float* m);
void decode_second(const uint8_t* codes, float scale, int64_t n, float* v);

// A finite float's bits as bf16: to the nearest, half to even; or up or down by the 16 bits of chance.
inline uint16_t nearest_bf16(uint32_t bits) { return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16); }
inline uint16_t chance_bf16(uint32_t bits, uint64_t draw) { return static_cast<uint16_t>((bits + (draw & 0xFFFF)) >> 16); }

}  // namespace statera
