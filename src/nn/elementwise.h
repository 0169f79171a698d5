// Elementwise work on activations: where fp32 rows without a graph run through kernels/elementwise on our own threads, and everything else
// through ATen. Both compute the same but for fp32 rounding. An operand given away (moved in) lends its memory to the result when nobody
// else holds it.
#pragma once

#include <ATen/core/Tensor.h>

namespace statera {

enum class Activation { silu, gelu, gelu_tanh, quick_gelu, relu };

// Whether a graph is being recorded through x.
bool tracked(const at::Tensor& x);
// Whether kernels may read x: fp32 and not tracked.
bool kernel_reads(const at::Tensor& x);

// a + b, same shape and dtype.
at::Tensor sum(const at::Tensor& a, at::Tensor b);
// y [..., N] + bias [N], in y's dtype.
at::Tensor add_bias(at::Tensor y, const at::Tensor& bias_N);
// act(x), elementwise.
at::Tensor activate(Activation kind, at::Tensor x);
// act(x) * times, same shape; rows may lie apart.
at::Tensor activate_times(Activation kind, at::Tensor x, const at::Tensor& times);

// These ask that kernel_reads holds for x, cos and sin, and that weights are not tracked.
// x [..., C] * (mean(x^2) + eps)^-1/2 * w [C]; w in any floating dtype.
at::Tensor kernel_rms_norm(const at::Tensor& x, const at::Tensor& w, double eps);
at::Tensor kernel_layer_norm(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b, double eps);
// x [T, heads, d], its first R dimensions turned by halves, cos and sin [T, R].
at::Tensor kernel_rope(const at::Tensor& x_TNd, const at::Tensor& cos_TR, const at::Tensor& sin_TR);

}  // namespace statera
