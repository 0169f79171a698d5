// WeightRep: how a weight matrix is held and multiplied. Four virtuals, frozen: what all representations can do.
// Dense (as stored or as trained), Rounded (fake-quant: keeps its QTensor), Packed (low bits in a kernel's layout).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "nn/qtensor.h"

namespace statera {

// How the input of a linear layer is quantized: symmetric, dynamic per token. scale = max|x| / ((2^bits - 1) / 2) and codes in
// [-2^(bits-1), 2^(bits-1) - 1], as compressed-tensors defines it (vLLM's kernels divide by 127 instead of 127.5).
struct ActQuant {
  int bits = 8;
  bool operator==(const ActQuant&) const = default;
};
// x with every row rounded to the grid of `act` (fake quantization): what the integer kernels compute with, exactly.
at::Tensor fake_quantize(const at::Tensor& x_TK, const ActQuant& act);

class WeightRep {
 public:
  virtual ~WeightRep() = default;
  // y[T, N] = x[T, K] * W^T, in x's dtype; no bias. `act` quantizes x first (null: x as it is).
  virtual at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const = 0;
  // W as a floating tensor [N, K] (fp32 for quantized representations, the stored tensor for Dense).
  virtual at::Tensor dense() const = 0;
  // The integers behind W, when there are any.
  virtual std::optional<QTensor> unpack() const = 0;
  // Bytes the representation occupies.
  virtual int64_t bytes() const = 0;
};

using Weight = std::shared_ptr<const WeightRep>;
Weight make_dense(at::Tensor W_NK);         // floating, any of f32, bf16, f16
Weight make_rounded(QTensor q);
// Kernel layout. int8_activations: the site has an ActQuant; with one scale per row both sides then run in integers.
Weight make_packed(const QTensor& q, bool int8_activations = false);

}  // namespace statera
