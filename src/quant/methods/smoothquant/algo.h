// SmoothQuant: per-channel scales that move outliers from activations into weights (Xiao et al. 2023; MBQ's fork of it). Pure.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace statera {

// Largest |W[:, j]| over all rows of all readers: floating [N_i, K] each. f32 [K]
at::Tensor weight_abs_max(std::span<const at::Tensor> readers_NK);

// s_j = max(x_j^alpha / max(w_j, 1e-5)^(1 - alpha), 1e-5), fp32 [K]: what fold_scale() takes (readers times s, producer divided by s).
// x_max: largest |x| per channel on calibration data, [K]; w_max: weight_abs_max. Error(usage) unless 0 <= alpha <= 1.
at::Tensor smooth_scale(const at::Tensor& x_max_K, const at::Tensor& w_max_K, double alpha = 0.5);

}  // namespace statera
