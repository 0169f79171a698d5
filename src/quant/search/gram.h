// Gram matrices of a layer's input and the squared output error that they give: sum_t c_t |dW x_t|^2 = tr(dW G dW^T) with
// G = sum_t c_t x_t x_t^T. With c the routing affinity this is MoEQuant's AGQ (section 3.1). Pure tensor functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace statera {

// gram [K, K] fp32 += sum_t c_t^exponent x_t x_t^T. x_TK floating; row_weight f32 [T], not negative, undefined: 1. Sums, not means:
// what GPTQ and the searches choose does not depend on the gram's scale.
void add_gram(at::Tensor& gram_KK, const at::Tensor& x_TK, const at::Tensor& row_weight_T = {}, double exponent = 1);
// tr(D G D^T) of a weight error D [N, K]; the sum runs in fp32 products and a double total.
double gram_loss(const at::Tensor& D_NK, const at::Tensor& gram_KK);

}  // namespace statera
