// elementwise: what happens to rows of f32 activations between products: norms, activation functions, rotation, sums, and one step of a
// softmax that meets its row block by block. Nothing here mixes rows, so callers may split them over threads.
#pragma once

#include <cstdint>

#include "kernels/hgemm/hgemm.h"

namespace statera::kernels::elementwise {

using hgemm::Type;

// Norm weights and biases, as they lie in the checkpoint; never i8.
struct Vector {
  const void* data = nullptr;
  Type type = Type::f32;
};

enum class Act : uint8_t { silu, gelu, gelu_tanh, quick_gelu, relu };

// Scores of hidden keys. Finite, so that a row which has met none but those stays a number; the first visible key wipes them out.
inline constexpr float kHidden = -1e30f;
inline constexpr int64_t kLanes = 16;  // softmax may write a row up to `count` rounded up to these

// Errors, as tests hold them: exp within 2^-22 of its value (relative, from -87 to 88; below, to 0), the activation functions within
// 2^-21 max(1, |x|).
struct Table {
  // y = x * (mean(x^2) + eps)^-1/2 * w. x [rows, ldx >= n], y [rows, n]; y may be x where ldx = n.
  void (*rms_norm)(const float* x, int64_t ldx, int64_t rows, int64_t n, Vector w, float eps, float* y) noexcept;
  // y = (x - mean) * (variance + eps)^-1/2 * w + b.
  void (*layer_norm)(const float* x, int64_t ldx, int64_t rows, int64_t n, Vector w, Vector b, float eps, float* y) noexcept;
  // y = act(x) * times (null: 1). x [rows, ldx], times [rows, ldt], y [rows, ldy], n columns; y may be x where ldx = ldy.
  void (*activate)(Act act, const float* x, int64_t ldx, const float* times, int64_t ldt, int64_t rows, int64_t n, float* y, int64_t ldy) noexcept;
  // y = a + b; y may be either.
  void (*add)(const float* a, const float* b, int64_t n, float* y) noexcept;
  // y [rows, ldy] += bias, n columns.
  void (*add_bias)(float* y, int64_t ldy, int64_t rows, int64_t n, Vector bias) noexcept;
  // One token: x [heads, d] with heads ldx apart, the first r dimensions turned by halves: y[j] = x[j] cos[j] - x[j + r/2] sin[j],
  // y[j + r/2] = x[j + r/2] cos[j + r/2] + x[j] sin[j + r/2], the others as they are. y [heads, d], not x.
  void (*rope)(const float* x, int64_t ldx, int64_t heads, int64_t d, int64_t r, const float* cos, const float* sin, float* y) noexcept;
  // One block of scores s [rows, lds], `count` of a row; those outside [begin[row], end[row]) are hidden: 0 comes of them. Raises maximum[row] to the
  // visible ones, turns s into exp(s - maximum), writes factor[row] = exp(old - new maximum), and total[row] = total[row] * factor + sum.
  void (*softmax)(float* s, int64_t lds, int64_t rows, int64_t count, const int64_t* begin, const int64_t* end, float* maximum, float* total,
                  float* factor) noexcept;
  // y [rows, ldy] = x [rows, ldx] times factor[row], n columns; y may be x.
  void (*scale_rows)(const float* x, int64_t ldx, int64_t rows, int64_t n, const float* factor, float* y, int64_t ldy) noexcept;
};
extern const Table kScalar;
extern const Table kAvx2;
extern const Table kAvx512;
// Of the active instruction set.
const Table& table();

}  // namespace statera::kernels::elementwise
