// WeightGrid: scales and zero points of the groups of a weight matrix apart from its codes, for the methods that move weights before
// rounding them or search over clipped ranges. fit_grid() without clipping gives the scales and zero points of rtn() in nn/qtensor.h, bit
// for bit; codes are nearest in fp32, which for fp32 weights is again rtn(). Pure tensor functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "nn/qtensor.h"

namespace statera {

struct WeightGrid {
  at::Tensor scale;  // [N, G], in the dtype of the weights it was fitted to
  at::Tensor zero;   // i8 [N, G], undefined when symmetric
};

// Search for a narrower range per group: shrink factors 1, 1 - 1/steps, ... above 1 - max_shrink, error sum |w' - w|^norm, the first
// strict minimum. The defaults are those of GPTQ's users (QuaRot, MQuant 2.9.2, MoEQuant 3.4): 80 factors 1.00 ... 0.21.
struct ClipSearch {
  double norm = 2.4;
  int steps = 100;
  double max_shrink = 0.8;
  int candidates() const { return static_cast<int>(max_shrink * steps + 1e-9); }
};

// Lowest and highest weight of each group, widened to hold 0 unless the spec says own_range. [N, G] each, in W's dtype.
struct GroupRange {
  at::Tensor low, high;
};
GroupRange group_range(const at::Tensor& W_NK, const QSpec& spec);
// Scale and zero point of ranges, by the formulas of rtn() and in the ranges' dtype.
WeightGrid grid_of(const GroupRange& range, const QSpec& spec);
// Grids of all groups of W, floating [N, K]; Error(usage) for a bad spec.
WeightGrid fit_grid(const at::Tensor& W_NK, const QSpec& spec, const std::optional<ClipSearch>& clip = {});

// Per-group values as fp32 columns: [N, G] -> [N, K].
at::Tensor spread_groups(const at::Tensor& per_group_NG, const QSpec& spec, int64_t columns);
// Largest magnitude of each group: [N, K] -> [N, G].
at::Tensor abs_max_of_groups(const at::Tensor& per_column_NK, const QSpec& spec);
// Sums of each group's columns: [N, K] -> [N, G].
at::Tensor sum_groups(const at::Tensor& per_column_NK, const QSpec& spec);
// Nearest codes as fp32 integers of w, fp32; scale and zero (undefined: none) broadcast against it. With own_range a weight half way
// between two codes goes where rounding before the zero point is added takes it.
at::Tensor nearest_codes(const at::Tensor& w, const at::Tensor& scale, const at::Tensor& zero, const QSpec& spec);
// W rounded on a given grid.
QTensor round_on(const at::Tensor& W_NK, const WeightGrid& grid, const QSpec& spec);

}  // namespace statera
