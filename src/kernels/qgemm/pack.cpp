// Layout, pack and unpack. A block is 16 rows of words turned: what a checkpoint holds as words already is turned without looking at codes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/qgemm/qgemm.h"

namespace statera::kernels::qgemm {
namespace {

constexpr int64_t kUnit = 32;  // codes of a row that fill whole 32-bit words whatever the bits

int64_t round_up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }
int64_t scale_bytes(ScaleType t) { return t == ScaleType::f32 ? 4 : 2; }

float from_f16(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const float magnitude =
      exponent ? std::ldexp(1.0f + static_cast<float>(fraction) / 1024.0f, exponent - 15) : std::ldexp(static_cast<float>(fraction), -24);
  return h & 0x8000 ? -magnitude : magnitude;
}

// The bits of v as f16 when it is exact and finite there; false otherwise.
bool to_f16(float v, uint16_t& h) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const int exponent = static_cast<int>(bits >> 23 & 255) - 127;
  if ((bits & 0x7fffffff) == 0) {
    h = sign;
  } else if (exponent > 15) {
    return false;
  } else if (exponent >= -14) {
    if ((bits & 0x1fff) != 0) return false;
    h = static_cast<uint16_t>(sign | (exponent + 15) << 10 | (bits >> 13 & 1023));
  } else {
    const float steps = std::ldexp(std::fabs(v), 24);  // exact: a power of two
    if (steps >= 1024.0f || steps != std::floor(steps)) return false;
    h = static_cast<uint16_t>(sign | static_cast<uint16_t>(steps));
  }
  return true;
}

bool to_bf16(float v, uint16_t& h) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  h = static_cast<uint16_t>(bits >> 16);
  return (bits & 0xffff) == 0;
}

void store_scale(const Layout& l, uint8_t* at, float v) {
  uint16_t h = 0;
  if (l.scale == ScaleType::f32) {
    std::memcpy(at, &v, 4);
    return;
  }
  if (!(l.scale == ScaleType::f16 ? to_f16(v, h) : to_bf16(v, h)))
    throw std::invalid_argument("qgemm::pack: scale " + std::to_string(v) + " is not exact in the spec's scale type");
  std::memcpy(at, &h, 2);
}

float load_scale(const Layout& l, const uint8_t* at) {
  uint32_t bits = 0;
  if (l.scale == ScaleType::f32) {
    std::memcpy(&bits, at, 4);
    return std::bit_cast<float>(bits);
  }
  uint16_t h;
  std::memcpy(&h, at, 2);
  return l.scale == ScaleType::f16 ? from_f16(h) : std::bit_cast<float>(uint32_t{h} << 16);
}

// Word j of the field stream of `row` in unit u is words[(u*bits + j)*16 + row].
uint32_t get_field(const uint32_t* words, int bits, int64_t k, int row) {
  const int64_t u = k / kUnit, bit = k % kUnit * bits;
  const uint32_t* at = words + (u * bits + bit / 32) * kRowBlock + row;
  uint32_t field = at[0] >> bit % 32;
  if (bit % 32 + bits > 32) field |= at[kRowBlock] << (32 - bit % 32);
  return field & ((1u << bits) - 1);
}

// A row's codes as words, fields low bit first.
void to_words(const Spec& spec, const Layout& l, const uint8_t* codes, uint32_t* words) {
  uint8_t any = 0;
  for (int64_t i = 0; i < l.k; ++i) any |= codes[i];
  if (any >> spec.bits != 0) {
    const uint8_t* wrong = std::find_if(codes, codes + l.k, [&](uint8_t c) { return c >> spec.bits != 0; });
    throw std::invalid_argument("qgemm::pack: code " + std::to_string(*wrong) + " does not fit " + std::to_string(spec.bits) + " bits");
  }
  const int shift = (1 << (l.bits - 1)) - l.centre;  // to the centre of the stored width: 7 bits lie in 8
  if (spec.bits == 8) {  // they are words
    if (l.k % 4 != 0) words[l.k / 4] = 0;
    std::memcpy(words, codes, static_cast<size_t>(l.k));
    return;
  }
  uint64_t buffer = 0;
  int held = 0;
  for (int64_t i = 0; i < l.k; ++i) {
    buffer |= static_cast<uint64_t>(codes[i] + shift) << held;
    held += l.bits;
    if (held < 32) continue;
    *words++ = static_cast<uint32_t>(buffer);
    buffer >>= 32;
    held -= 32;
  }
  if (held > 0) *words = static_cast<uint32_t>(buffer);
}

// Writes the codes of up to 16 rows, `width` words each, into their block. Codes become signed by turning the top bit of their fields; rows that
// are not there and what lies behind the last code are zero.
void turn(const Layout& l, const uint32_t* words, int64_t width, int64_t rows, uint8_t* block) {
  constexpr int64_t kTile = 16;  // words of a row: a cache line
  uint32_t top[kTile + 8] = {};  // of consecutive words; they repeat after `bits` of them
  for (int64_t bit = l.bits - 1; bit < (kTile + 8) * 32; bit += l.bits) top[bit / 32] |= 1u << bit % 32;
  auto* out = reinterpret_cast<uint32_t*>(block);
  for (int64_t from = 0; from < width; from += kTile) {
    const int64_t count = std::min(kTile, width - from);
    const uint32_t* flip = top + from % l.bits;
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t* in = words + r * width + from;
      for (int64_t w = 0; w < count; ++w) out[(from + w) * kRowBlock + r] = in[w] ^ flip[w];
    }
    for (int64_t r = rows; r < kRowBlock; ++r)
      for (int64_t w = 0; w < count; ++w) out[(from + w) * kRowBlock + r] = 0;
  }
  const int64_t odd = l.k * l.bits % 32;
  for (int64_t r = 0; odd && r < rows; ++r) out[(width - 1) * kRowBlock + r] &= (1u << odd) - 1;
  std::memset(out + width * kRowBlock, 0, static_cast<size_t>(l.units * l.bits - width) * kRowBlock * 4);
}

void store_scales(const Spec& spec, const Layout& l, int64_t row, const float* scales, const uint8_t* zeros, uint8_t* block) {
  for (int64_t g = 0; g < l.groups; ++g) {
    const int64_t slot = g * kRowBlock + row;
    store_scale(l, block + l.scale_offset + slot * scale_bytes(l.scale), scales[g]);
    if (!l.zeros) continue;
    if (zeros[g] >> spec.bits != 0)
      throw std::invalid_argument("qgemm::pack: zero " + std::to_string(zeros[g]) + " does not fit " + std::to_string(spec.bits) + " bits");
    block[l.zero_offset + slot] = zeros[g];
  }
}

}  // namespace

int64_t group_size(const Spec& spec) { return spec.group <= 0 || spec.group > spec.k ? spec.k : spec.group; }
int64_t group_count(const Spec& spec) { return spec.k == 0 ? 0 : (spec.k + group_size(spec) - 1) / group_size(spec); }

ScaleType exact_scale_type(const float* scales, int64_t count) {
  bool f16 = true, bf16 = true;
  uint16_t unused;
  for (int64_t i = 0; i < count && (f16 || bf16); ++i) {
    f16 = f16 && to_f16(scales[i], unused);
    bf16 = bf16 && to_bf16(scales[i], unused);
  }
  return f16 ? ScaleType::f16 : bf16 ? ScaleType::bf16 : ScaleType::f32;
}

Layout layout_of(const Spec& spec) {
  Layout l{};
  l.n = spec.n;
  l.k = spec.k;
  l.bits = spec.bits == 7 ? 8 : spec.bits;
  l.centre = 1 << (spec.bits - 1);
  l.group = group_size(spec);
  l.groups = group_count(spec);
  l.units = round_up(spec.k, kUnit) / kUnit;
  l.scale = spec.scale;
  l.zeros = spec.zeros;
  l.scale_offset = l.units * l.bits * kRowBlock * 4;
  l.zero_offset = l.scale_offset + l.groups * kRowBlock * scale_bytes(l.scale);
  l.block_bytes = round_up(l.zero_offset + (l.zeros ? l.groups * kRowBlock : 0), 64);
  return l;
}

size_t packed_bytes(const Spec& spec) {
  if (spec.bits < 2 || spec.bits > 8) throw std::invalid_argument("qgemm: bits " + std::to_string(spec.bits) + " not in 2..8");
  if (spec.n < 0 || spec.k < 0) throw std::invalid_argument("qgemm: negative shape");
  return static_cast<size_t>(round_up(spec.n, kRowBlock) / kRowBlock * layout_of(spec).block_bytes);
}

int64_t row_words(const Spec& spec) { return (spec.k * layout_of(spec).bits + 31) / 32; }

void pack_rows(const Spec& spec, const Codes& from, void* packed, int64_t n_begin, int64_t n_end) {
  const Layout l = layout_of(spec);
  if (from.words && l.bits != spec.bits) throw std::invalid_argument("qgemm::pack: words of 7 bits");
  const int64_t width = row_words(spec);
  std::vector<uint32_t> own(from.words ? 0 : static_cast<size_t>(kRowBlock * width));
  for (int64_t n = n_begin; n < n_end; n += kRowBlock) {
    const int64_t rows = std::min<int64_t>(kRowBlock, n_end - n);
    uint8_t* block = static_cast<uint8_t*>(packed) + n / kRowBlock * l.block_bytes;
    std::memset(block + l.scale_offset, 0, static_cast<size_t>(l.block_bytes - l.scale_offset));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = n - n_begin + r;
      if (!from.words) to_words(spec, l, from.codes + row * l.k, own.data() + r * width);
      store_scales(spec, l, r, from.scales + row * l.groups, l.zeros ? from.zeros + row * l.groups : nullptr, block);
    }
    turn(l, from.words ? from.words + (n - n_begin) * width : own.data(), width, rows, block);
  }
}

void pack(const Spec& spec, const uint8_t* codes, const float* scales, const uint8_t* zeros, void* packed) {
  pack_rows(spec, {.codes = codes, .words = nullptr, .scales = scales, .zeros = zeros}, packed, 0, spec.n);
}

void unpack(const Spec& spec, const void* packed, uint8_t* codes, float* scales, uint8_t* zeros) {
  const Layout l = layout_of(spec);
  for (int64_t row = 0; row < l.n; ++row) {
    const uint8_t* block = static_cast<const uint8_t*>(packed) + row / kRowBlock * l.block_bytes;
    const auto* words = reinterpret_cast<const uint32_t*>(block);
    const int r = static_cast<int>(row % kRowBlock);
    for (int64_t i = 0; i < l.k; ++i)
      codes[row * l.k + i] = static_cast<uint8_t>((get_field(words, l.bits, i, r) + l.centre) & ((1u << l.bits) - 1));
    for (int64_t g = 0; g < l.groups; ++g) {
      scales[row * l.groups + g] = load_scale(l, block + l.scale_offset + (g * kRowBlock + r) * scale_bytes(l.scale));
      if (l.zeros) zeros[row * l.groups + g] = block[l.zero_offset + g * kRowBlock + r];
    }
  }
}

}  // namespace statera::kernels::qgemm
