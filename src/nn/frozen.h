// frozen: a product with a weight in few bits that never learns, inside a graph: what adapters over a packed base train through (QLoRA).
// The weight's floats exist while a product is taken, forward and once more for the gradient; no graph keeps them.
#pragma once

#include "nn/weight.h"

namespace statera {

// x[T, K] * W^T in x's dtype, with a gradient for x where one is wanted. The weight must outlive the graph.
at::Tensor frozen_linear(const at::Tensor& x_TK, const WeightRep& weight);

}  // namespace statera
