// QTensor: integers, scales and zeros of one quantized weight matrix: the one currency between rounding, fake-quant evaluation,
// packed kernels and checkpoint formats. dequantize() is the definition of truth. No packing, no files.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace statera {

constexpr double kLeastOwnRange = 1e-5;

struct QSpec {
  int bits = 4;          // 2..8
  int64_t group = 128;   // columns that share a scale; -1: the whole row (channel). The last group of a row may be shorter
  bool symmetric = true; // no zero points
  bool own_range = false; // asymmetric: how scale and zero point are found, see rtn(). Nothing in files tells it
  int64_t groups(int64_t columns) const { return group <= 0 ? 1 : (columns + group - 1) / group; }
  int qmin() const { return -(1 << (bits - 1)); }
  int qmax() const { return (1 << (bits - 1)) - 1; }
  QSpec whole_rows() const { return {bits, -1, symmetric, own_range}; }
  bool operator==(const QSpec&) const = default;
};

// Throws Error(usage) when bits or group are out of range for `columns`.
void check_spec(const QSpec& spec, int64_t columns);

struct QTensor {
  QSpec spec;
  at::Tensor q;      // i8 [N, K], signed codes in [qmin, qmax]
  at::Tensor scale;  // floating [N, G], in the precision it is stored with
  at::Tensor zero;   // i8 [N, G], signed in [qmin, qmax]; undefined when symmetric

  int64_t rows() const { return q.size(0); }
  int64_t columns() const { return q.size(1); }
  // (q - zero) * scale in fp32, cast to dtype. [N, K]
  at::Tensor dequantize(at::ScalarType dtype = at::kFloat) const;
  // Bytes of the codes at `bits` per weight, scales and zero points.
  int64_t bytes() const;
};

// Round-to-nearest with the arithmetic of compressed-tensors (docs/formats.md): symmetric scale = max|w| / ((qmax-qmin)/2), asymmetric
// scale = (max-min)/(2^b-1) over ranges widened to hold 0; half-to-even; zero scales become the epsilon of the scale's dtype.
// W: floating [N, K]. scale_dtype is the dtype of W; arithmetic is done in it, as the reference does.
// With own_range asymmetric groups are rounded as MBQ's code does: the range is [min, max] of the group's own weights, whether it holds 0
// or not, and no narrower than 1e-5; zero = qmin + clamp(-round(min/scale)), so that groups of one sign saturate; the weight is rounded
// before the zero point is added: clamp(round(w/scale) + zero).
QTensor rtn(const at::Tensor& W_NK, const QSpec& spec);

}  // namespace statera
