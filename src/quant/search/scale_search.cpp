// Candidates, pick and error sums.
#include "quant/search/scale_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"

namespace statera {

at::Tensor scale_of_ratio(const at::Tensor& mean_abs_K, double ratio, double floor) {
  check(mean_abs_K.dim() == 1 && mean_abs_K.size(0) > 0, "one statistic per channel");
  at::Tensor s = at::pow(mean_abs_K.to(at::kFloat), ratio).clamp_min_(floor);
  return s.div_(std::sqrt(s.max().item<double>() * s.min().item<double>()));
}

ScaleChoice search_scale(const at::Tensor& mean_abs_K, const ScaleGridOptions& options,
                         const std::function<double(const at::Tensor&)>& loss) {
  if (options.steps < 1) throw Error(ErrorKind::usage, "scale search needs at least 1 step, has " + std::to_string(options.steps));
  at::Tensor m = mean_abs_K.to(at::kFloat), readers;
  if (!options.reader_of.empty()) {
    check(static_cast<int64_t>(options.reader_of.size()) == m.size(0), "one produced channel per reader channel");
    readers = at::tensor(options.reader_of, at::kLong);
    at::Tensor sum = at::zeros({options.channels}), count = at::zeros({options.channels});
    sum.index_add_(0, readers, m);
    count.index_add_(0, readers, at::zeros({m.size(0)}).fill_(1));
    m = sum / count.clamp_min_(1);
  }
  ScaleChoice best;
  best.loss = std::numeric_limits<double>::infinity();
  for (int k = 0; k < options.steps; ++k) {
    const double ratio = static_cast<double>(k) / options.steps;
    const at::Tensor scale = scale_of_ratio(m, ratio, options.floor);
    const double now = loss(readers.defined() ? at::index_select(scale, 0, readers) : scale);
    best.losses.push_back(now);
    if (!(now < best.loss)) continue;
    best.scale = scale;
    best.ratio = ratio;
    best.loss = now;
  }
  if (!best.scale.defined()) throw Error(ErrorKind::bad_file, "no scale gives a finite error: the activations hold NaN or infinity");
  return best;
}

double weighted_error(const at::Tensor& Y_TN, const at::Tensor& Yhat_TN, const at::Tensor& row_weight_T, ErrorNorm norm) {
  check(Y_TN.dim() == 2 && Y_TN.sizes() == Yhat_TN.sizes(), "outputs of one shape");
  at::Tensor off = Y_TN.to(at::kFloat) - Yhat_TN.to(at::kFloat);
  at::Tensor rows = at::mean(norm == ErrorNorm::mse ? off.square_() : off.abs_(), {1}).to(at::kDouble);
  if (row_weight_T.defined()) {
    check(row_weight_T.dim() == 1 && row_weight_T.size(0) == rows.size(0), "one weight per row");
    rows.mul_(row_weight_T);
  }
  return rows.sum().item<double>();
}

}  // namespace statera
