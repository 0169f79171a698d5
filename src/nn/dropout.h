// dropout: elements set to 0 with probability p, the others divided by 1 - p (torch's inverted scaling). The mask is a function of a key
// and an element's place alone: a block that runs again drops the same elements, threads change nothing, and no graph keeps the mask.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace statera {

// x [T, K] in any floating dtype, 0 < p < 1. Element i in row-major order depends on key and i.
at::Tensor drop(const at::Tensor& x_TK, double p, uint64_t key);

}  // namespace statera
