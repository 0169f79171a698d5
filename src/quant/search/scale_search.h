// Choosing per-channel scales by grid search, as AWQ and MBQ do: candidate vectors from activation statistics, the error of a trial
// output, and the pick. What a candidate does to a block is the caller's loss. Pure tensor functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace statera {

struct ScaleGridOptions {
  int steps = 20;       // ratios 0, 1/steps, ..., 1 - 1/steps; ratio 0 is no scaling
  double floor = 1e-4;  // of m^ratio before normalising
  // As ScaleGroup: reader channel c carries produced channel reader_of[c]. Empty: one scale per reader channel. Channels of several
  // readers' heads that come from one produced channel (GQA) share the scale of their mean statistic.
  std::vector<int64_t> reader_of = {};
  int64_t channels = 0;
};

// max(m^ratio, floor), divided by sqrt(max * min) of itself. m: mean |x| per channel, f32 [K], not negative. fp32 [K]
at::Tensor scale_of_ratio(const at::Tensor& mean_abs_K, double ratio, double floor = 1e-4);

struct ScaleChoice {
  at::Tensor scale;  // f32, per produced channel: what fold_scale() takes
  double ratio = 0, loss = 0;
  std::vector<double> losses;  // of every ratio
};
// Calls loss with each candidate, per reader channel [K]; the least wins, the smaller ratio on a tie, NaN never. Error(bad_file) when no
// candidate gives a number; Error(usage) for steps < 1.
ScaleChoice search_scale(const at::Tensor& mean_abs_K, const ScaleGridOptions& options,
                         const std::function<double(const at::Tensor&)>& loss);

enum class ErrorNorm { mae, mse };
// sum over rows of weight_t * mean over channels of |Y - Yhat| or its square; weight f32 [T], undefined: 1. Differences in fp32, the total
// in double: sums over samples may be added in any split.
double weighted_error(const at::Tensor& Y_TN, const at::Tensor& Yhat_TN, const at::Tensor& row_weight_T, ErrorNorm norm);

}  // namespace statera
