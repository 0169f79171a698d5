// mixed: a floating matrix that learns in fp32 while its products, forward and both gradients, are taken of bf16 and summed in fp32: what training
// takes where the CPU multiplies bf16 at twice the rate of fp32.
#pragma once

#include "nn/weight.h"

namespace statera {

// Whether this CPU and the active instruction set have such products (AVX512_BF16). Elsewhere they are right, but slower than fp32 ones.
bool has_bf16_products();
// W [N, K] in fp32; rows that meet it are fp32.
Weight make_mixed(at::Tensor W_NK);
bool is_mixed(const WeightRep& weight);

}  // namespace statera
