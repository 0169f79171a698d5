// The squared output error that a gram gives: sum_t c_t |D x_t|^2 = tr(D G D^T) with G = sum_t c_t x_t x_t^T (gathered by Gram of
// quant/calib/accumulators.h). With c the routing affinity this is the loss of MoEQuant's AGQ (section 3.1).
#pragma once

#include <ATen/core/Tensor.h>

namespace statera {

// tr(D G D^T) of a weight error D, floating [N, K]; G f32 [K, K]. Products in fp32, the total in double; the same for any number of
// threads.
double gram_loss(const at::Tensor& D_NK, const at::Tensor& gram_KK);

}  // namespace statera
