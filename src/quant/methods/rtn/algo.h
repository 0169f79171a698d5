// Round-to-nearest over raw rows: the streaming twin of rtn() in nn/qtensor.h, which is its specification (same integers, scales and
// zero points to the bit). Reads a weight where it lies (a mapped file), row-parallel, with the rounding error summed on the way.
// Pure: no files, no model, no step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/qtensor.h"

namespace statera {

struct RtnResult {
  QTensor q;
  double error = 0;       // sum of (dequantized - w)^2
  double weight = 0;      // sum of w^2
  int64_t nonfinite = 0;  // NaN or infinite weights, or scales that overflowed; q is meaningless when > 0
};

// W: contiguous f32, bf16 or f16 [N, K] on the CPU. Sums do not depend on the number of threads.
// Throws Error(usage) for a spec that does not fit K (check_spec), Error(unsupported) for another dtype.
RtnResult rtn_rows(const at::Tensor& W_NK, const QSpec& spec);

}  // namespace statera
