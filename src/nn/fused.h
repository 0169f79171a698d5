// fused: RMSNorm and rotation as single operations with gradients written out, for training passes in fp32, where a small model's time goes
// into the count of operations and their passes over memory. Same formulas as norm.cpp and rope.cpp; inference does not come here.
#pragma once

#include <ATen/core/Tensor.h>

namespace statera {

// Whether a graph is being recorded through any of these fp32 tensors.
bool trains_in_fp32(const at::Tensor& x, const at::Tensor& other);

// x [..., C] * rsqrt(mean(x^2) + eps) * w [C].
at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& w, double eps);

// x [T, heads, d] rotated by cos and sin [T, d] (halves), whole width.
at::Tensor fused_rope(const at::Tensor& x_TNd, const at::Tensor& cos_TR, const at::Tensor& sin_TR);

}  // namespace statera
