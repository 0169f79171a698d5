// MBQ: AWQ's scale search under a loss that balances vision and answer tokens by how much the model's loss depends on each (MBQ 2.5 to
// 2.8, arXiv 2412.19509), for weights alone or weights with activations. Pure: sensitivities, masks and trial outputs are given.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "nn/qtensor.h"
#include "nn/weight.h"
#include "quant/search/scale_search.h"

namespace statera {

// Mean |gradient| of a layer's output over the vision and over the answer tokens of one sequence; absent: it has none.
struct Sensitivity {
  std::optional<double> vision = {}, answer = {};
};
// gradient floating [T, C], masks bool [T].
Sensitivity modality_sensitivity(const at::Tensor& gradient_TC, const at::Tensor& vision_T, const at::Tensor& answer_T);
// rho = mean vision / mean answer sensitivity over the sequences that have both kinds of tokens, each sequence counting the same: others
// change nothing. Absent when there are none or the answers have no finite gradient: the block is then to be searched without reweighting.
std::optional<double> modality_ratio(std::span<const Sensitivity> sequences);
// max(rho, median of all blocks that have one): the last block's vision tokens never have a gradient. Absent ones become 1.
std::vector<double> floor_at_median(std::span<const std::optional<double>> rho_L, bool floor = true);

struct MbqLoss {
  ErrorNorm norm = ErrorNorm::mae;
  bool reweight = true;   // off: all rows count the same, masks and rho are unused
  bool own_mean = false;  // each modality normalised by its own count first; off: both by their common count
  // The two losses of the published code: mae with a common count (recommended), mse with own means.
  static MbqLoss published_mae() { return {ErrorNorm::mae, true, false}; }
  static MbqLoss published_mse() { return {ErrorNorm::mse, true, true}; }
};
// Over all calibration data.
struct TokenCounts {
  int64_t all = 0, vision = 0, answer = 0;
};
// Weight of each row such that weighted_error() with it, summed over all data, is the loss: f32 [T]. Rows that are neither vision nor
// answer weigh 0 under reweighting; with neither kind anywhere, all weigh the same. masks bool [T], disjoint.
at::Tensor mbq_row_weight(const at::Tensor& vision_T, const at::Tensor& answer_T, const TokenCounts& counts, const MbqLoss& loss,
                          double rho);

// What a candidate makes of a group: weights f32 [N_i, K]; with activations they belong to inputs divided by `divisor` and then quantized
// by `act`, otherwise (divisor undefined) to the input as it is.
struct MbqTrial {
  std::vector<at::Tensor> weights;
  at::Tensor divisor;  // f32 [K]
  std::optional<ActQuant> act;
};
// specs: of each reader.
MbqTrial mbq_trial(std::span<const at::Tensor> readers_NK, const at::Tensor& scale_K, std::span<const QSpec> specs,
                   const std::optional<ActQuant>& act);
// One reader's output under a trial. x [T, K] floating, result f32 [T, N_i].
at::Tensor trial_output(const MbqTrial& trial, size_t reader, const at::Tensor& x_TK);

// replay returns the loss of a trial summed over all samples (rows weighted by mbq_row_weight). mean_abs: of the input the trials run on,
// which under distort is the one that the quantized blocks before give.
using MbqReplay = std::function<double(const MbqTrial& trial)>;
ScaleChoice mbq_search(std::span<const at::Tensor> readers_NK, const at::Tensor& mean_abs_K, std::span<const QSpec> specs,
                       const std::optional<ActQuant>& act, const MbqReplay& replay, const ScaleGridOptions& options = {});
// Replay where the readers' own outputs, side by side, are inspected: target from x, trials on x_trial (the same tensor, or the distorted
// one).
ScaleChoice mbq_search(std::span<const at::Tensor> readers_NK, const at::Tensor& x_TK, const at::Tensor& x_trial_TK,
                       const at::Tensor& row_weight_T, const QSpec& spec, const std::optional<ActQuant>& act, ErrorNorm norm,
                       const ScaleGridOptions& options = {});

}  // namespace statera
