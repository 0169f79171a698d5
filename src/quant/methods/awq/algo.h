// AWQ: per-channel scales by grid search on the error of a trial output, and an optional search for clipped ranges (Lin et al. 2023; the
// baseline of MBQ 2.3). Weights only: readers become Q(W s) / s on unscaled input. Pure: no model, no files, no step.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <vector>

#include "nn/qtensor.h"
#include "quant/search/scale_search.h"

namespace statera {

// Q(W s) / s in fp32: what a reader computes with after folding s and rounding. W floating [N, K], scale f32 [K]; undefined: Q(W).
at::Tensor awq_trial(const at::Tensor& W_NK, const at::Tensor& scale_K, const QSpec& spec);

// What is known of the readers' input where the loss is the squared error of their outputs: its gram [K, K], or, cheaper to evaluate when
// they are fewer than K, the rows themselves [T, K] with their weights (f32 [T], undefined: 1). Exactly one of gram and rows.
struct AwqInput {
  at::Tensor gram_KK = {}, rows_TK = {}, row_weight_T = {};
};
// Loss: sum over readers of sum_t c_t |(Q(W s)/s - W) x_t|^2. Does not depend on the number of threads.
// specs: of each reader.
ScaleChoice awq_search(std::span<const at::Tensor> readers_NK, const AwqInput& input, const at::Tensor& mean_abs_K,
                       std::span<const QSpec> specs, const ScaleGridOptions& options = {});
inline ScaleChoice awq_search(std::span<const at::Tensor> readers_NK, const AwqInput& input, const at::Tensor& mean_abs_K, const QSpec& spec,
                              const ScaleGridOptions& options = {}) {
  return awq_search(readers_NK, input, mean_abs_K, std::vector<QSpec>(readers_NK.size(), spec), options);
}

// Any other loss: replay gets the readers' trial weights, f32 [N_i, K], and returns the error summed over all samples (weighted_error of
// the inspected module's outputs, say).
using AwqReplay = std::function<double(const std::vector<at::Tensor>& trial_NK)>;
ScaleChoice awq_search(std::span<const at::Tensor> readers_NK, const at::Tensor& mean_abs_K, const QSpec& spec, const AwqReplay& replay,
                       const ScaleGridOptions& options = {});

// The range to keep in each row and group: max|w| times 1, 1 - 1/steps, ... above 1 - max_shrink, whichever gives the group's part of
// the output the least squared error after rounding, the first on a tie. Steps taken off, u8 [N, G]
struct AwqClipOptions {
  int steps = 20;  // at most 256
  double max_shrink = 0.5;
};
at::Tensor awq_shrink(const at::Tensor& W_NK, const at::Tensor& gram_KK, const QSpec& spec, const AwqClipOptions& options = {});
// Largest magnitude to keep: max|w| * (1 - shrink / steps). f32 [N, G]
at::Tensor awq_bounds(const at::Tensor& W_NK, const at::Tensor& shrink_NG, const QSpec& spec, int64_t steps);
// awq_bounds of awq_shrink.
at::Tensor awq_clip(const at::Tensor& W_NK, const at::Tensor& gram_KK, const QSpec& spec, const AwqClipOptions& options = {});
// W with every group clamped to [-bound, bound], in W's dtype: what is then rounded.
at::Tensor clamp_groups(const at::Tensor& W_NK, const at::Tensor& bound_NG, const QSpec& spec);

}  // namespace statera
