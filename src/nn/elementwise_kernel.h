// Names and vectors of ours as kernels/elementwise takes them. For the files of nn where tensors meet kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/elementwise/elementwise.h"
#include "nn/elementwise.h"

namespace statera {

// A norm's weight or a bias that kernels may read as it is stored.
bool is_vector(const at::Tensor& x);
// That; x has to outlive it.
kernels::elementwise::Vector vector_of(const at::Tensor& x);
kernels::elementwise::Act act_of(Activation kind);

}  // namespace statera
