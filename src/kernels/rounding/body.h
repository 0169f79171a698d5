// The loops of rounding, once for every vector width: an ISA file defines kVector, bytes of a vector, and store_codes(), of one, and includes this.
#pragma once

namespace statera::kernels::rounding {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

constexpr int kLanes = 16;
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds |v| < 2^22 half to even, the integer in the low bits

// Vectors of the machine's width: with plain arrays the ternaries stay scalar, wider ones fall apart.
constexpr int kWidth = kVector / 4, kVectors = kLanes / kWidth;
using Vector [[gnu::vector_size(kVector)]] = float;
using Words [[gnu::vector_size(kVector)]] = uint32_t;

STATERA_INLINE uint32_t bits_of(float v) { return __builtin_bit_cast(uint32_t, v); }
STATERA_INLINE Words bits_of(Vector v) { return __builtin_bit_cast(Words, v); }
STATERA_INLINE float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }
STATERA_INLINE Vector float_of(Words bits) { return __builtin_bit_cast(Vector, bits); }
STATERA_INLINE void set(float& to, float v) { to = v; }
STATERA_INLINE void set(Vector& to, float v) { to = Vector{} + v; }
STATERA_INLINE void store(float code, int8_t* q) { *q = static_cast<int8_t>(static_cast<int32_t>(code)); }
STATERA_INLINE void store(Vector codes, int8_t* q) { store_codes(codes, q); }

// widen: stored bits -> f32. round: f32 (or a vector of it) -> nearest value of the type, for magnitudes that decide a code (f16 subnormals need not
// be exact there: they are far below a half).
template <Type T>
struct As;
template <>
struct As<Type::f32> {
  using Stored = float;
  static STATERA_INLINE float widen(float w) { return w; }
  template <class F>
  static STATERA_INLINE F round(F v) {
    return v;
  }
};
template <>
struct As<Type::bf16> {
  using Stored = uint16_t;
  static STATERA_INLINE float widen(uint16_t w) { return float_of(static_cast<uint32_t>(w) << 16); }
  template <class F>
  static STATERA_INLINE F round(F v) {
    const auto b = bits_of(v);
    return float_of((b + 0x7FFFu + ((b >> 16) & 1u)) & 0xFFFF0000u);
  }
};
template <>
struct As<Type::f16> {
  using Stored = uint16_t;
  static STATERA_INLINE float widen(uint16_t w) {
    const uint32_t h = w, special = (h & 0x7C00u) == 0x7C00u ? 0x7F800000u : 0u;  // infinities and NaNs keep their exponent
    const float magnitude = float_of((h & 0x7FFFu) << 13) * 0x1p112f;
    return float_of(bits_of(magnitude) | special | ((h & 0x8000u) << 16));
  }
  template <class F>
  static STATERA_INLINE F round(F v) {
    const auto b = bits_of(v);
    return float_of((b + 0xFFFu + ((b >> 13) & 1u)) & 0xFFFFE000u);
  }
};

template <Type T>
void widen_type(const void* w, int64_t count, float* out) {
  const auto* from = static_cast<const typename As<T>::Stored*>(w);
  for (int64_t i = 0; i < count; ++i) out[i] = As<T>::widen(from[i]);
}

void widen(const void* w, Type type, int64_t count, float* out) noexcept {
  if (type == Type::f32) return widen_type<Type::f32>(w, count, out);
  if (type == Type::f16) return widen_type<Type::f16>(w, count, out);
  widen_type<Type::bf16>(w, count, out);
}

Range range(const float* x, int64_t count, float start) noexcept {
  Vector low[kVectors], high[kVectors], poison[kVectors] = {};
  for (int v = 0; v < kVectors; ++v) low[v] = high[v] = Vector{} + start;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int v = 0; v < kVectors; ++v) {
      Vector here;
      __builtin_memcpy(&here, x + i + kWidth * v, sizeof here);
      low[v] = here < low[v] ? here : low[v];
      high[v] = here > high[v] ? here : high[v];
      poison[v] += here * 0.0f;  // NaN as soon as one weight is NaN or infinite
    }
  Range r{start, start, start * 0.0f == 0.0f};
  for (; i < count; ++i) {
    r.low = x[i] < r.low ? x[i] : r.low;
    r.high = x[i] > r.high ? x[i] : r.high;
    r.finite = r.finite && x[i] * 0.0f == 0.0f;
  }
  for (int l = 0; l < kLanes; ++l) {
    const float a = low[l / kWidth][l % kWidth], b = high[l / kWidth][l % kWidth];
    r.low = a < r.low ? a : r.low;
    r.high = b > r.high ? b : r.high;
    r.finite = r.finite && poison[l / kWidth][l % kWidth] == 0.0f;
  }
  return r;
}

// The codes of one x or a vector of them; error and weight are added to.
template <Type T, Mode kMode, class F>
STATERA_INLINE void codes_at(const Grid& g, const float* x, int8_t* q, F& error, F& weight) {
  F w, scale, zero, least, most, rounder;
  __builtin_memcpy(&w, x, sizeof w);
  set(scale, g.scale);
  set(zero, g.zero);
  set(least, kMode == Mode::before_zero ? g.least - g.zero : g.least);
  set(most, kMode == Mode::before_zero ? g.most - g.zero : g.most);
  set(rounder, kRounder);
  F v = As<T>::round(w / scale);
  if constexpr (kMode == Mode::with_zero) v = As<T>::round(v + zero);
  v = v < least ? least : v;
  v = v > most ? most : v;
  v = (v + rounder) - rounder;
  if constexpr (kMode == Mode::before_zero) v = v + zero;  // bounds are whole numbers, so that rounding may follow clamping
  store(v, q);
  const F d = (v - zero) * scale - w;
  error += d * d;
  weight += w * w;
}

template <Type T, Mode kMode>
void codes_of(const Grid& g, const float* x, int64_t count, int8_t* q, Sums& sums) {
  Vector errors[kVectors] = {}, weights[kVectors] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int v = 0; v < kVectors; ++v) codes_at<T, kMode>(g, x + i + kWidth * v, q + i + kWidth * v, errors[v], weights[v]);
  float error[kLanes], weight[kLanes];
  __builtin_memcpy(error, errors, sizeof error);
  __builtin_memcpy(weight, weights, sizeof weight);
  for (; i < count; ++i) codes_at<T, kMode>(g, x + i, q + i, error[0], weight[0]);
  for (int l = 0; l < kLanes; ++l) {
    sums.error += error[l];
    sums.weight += weight[l];
  }
}

template <Type T>
void codes_type(const Grid& g, const float* x, int64_t count, int8_t* q, Sums& sums) {
  if (g.mode == Mode::symmetric) return codes_of<T, Mode::symmetric>(g, x, count, q, sums);
  if (g.mode == Mode::with_zero) return codes_of<T, Mode::with_zero>(g, x, count, q, sums);
  codes_of<T, Mode::before_zero>(g, x, count, q, sums);
}

void codes(const Grid& g, const float* x, int64_t count, int8_t* q, Sums& sums) noexcept {
  if (g.type == Type::f32) return codes_type<Type::f32>(g, x, count, q, sums);
  if (g.type == Type::f16) return codes_type<Type::f16>(g, x, count, q, sums);
  codes_type<Type::bf16>(g, x, count, q, sums);
}

}  // namespace
}  // namespace statera::kernels::rounding
