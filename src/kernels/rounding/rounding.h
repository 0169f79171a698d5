// rounding: weights to the nearest point of a grid, a group at a time: the inner loops of round-to-nearest (quant/methods/rtn, whose header says
// what is computed). Every quotient and sum is rounded to the type of the weights before the next operation. Sums run over 16 lanes whatever the
// instruction set, so that all give the same bits.
#pragma once

#include <cstdint>

#include "kernels/hgemm/hgemm.h"

namespace statera::kernels::rounding {

using hgemm::Type;  // f32, bf16 or f16

// How codes are found: without zero point; rounded with it; rounded before it is added.
enum class Mode { symmetric, with_zero, before_zero };

struct Range {
  float low = 0, high = 0;
  bool finite = true;
};

struct Grid {
  Type type;
  Mode mode;
  float scale, zero;
  float least, most;  // codes, within [-128, 127]
};

struct Sums {
  double error = 0;   // of (dequantized - x)^2
  double weight = 0;  // of x^2
};

struct Table {
  // out[i] = w[i] in f32, which is exact.
  void (*widen)(const void* w, Type type, int64_t count, float* out) noexcept;
  // Of x and `start`; finite: whether all of them are. Bounds of what is not finite are anything.
  Range (*range)(const float* x, int64_t count, float start) noexcept;
  // q[i]: the codes of x; sums are added to.
  void (*codes)(const Grid& grid, const float* x, int64_t count, int8_t* q, Sums& sums) noexcept;
};
extern const Table kScalar;
extern const Table kAvx2;
const Table& table();

}  // namespace statera::kernels::rounding
