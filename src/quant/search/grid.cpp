// Ranges, grids and codes in ATen operations on whole matrices; groups are a view [N, G, g] plus a shorter last one.
#include "quant/search/grid.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>

#include <limits>

#include "base/error.h"

namespace statera {
namespace {

double epsilon_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return std::numeric_limits<float>::epsilon();
    case at::kDouble:
      return std::numeric_limits<double>::epsilon();
    case at::kBFloat16:
      return 0x1p-7;
    case at::kHalf:
      return 0x1p-10;
    default:
      throw Error(ErrorKind::unsupported, "weights of this dtype cannot be quantized");
  }
}

// f(whole groups as [N, G', g]) and f(last one as [N, 1, r]), side by side: f reduces the last dimension.
template <class F>
at::Tensor reduce_groups(const at::Tensor& W_NK, const QSpec& spec, F&& f) {
  const int64_t N = W_NK.size(0), K = W_NK.size(1), group = spec.group <= 0 ? K : spec.group, whole = K / group * group;
  if (whole == K) return f(W_NK.reshape({N, K / group, group}));
  at::Tensor last = f(W_NK.slice(1, whole, K).unsqueeze(1));
  if (whole == 0) return last;
  return at::cat({f(W_NK.slice(1, 0, whole).reshape({N, whole / group, group})), last}, 1);
}

at::Tensor clip_error(const at::Tensor& w_NK, const WeightGrid& grid, const QSpec& spec, double norm) {
  const int64_t K = w_NK.size(1);
  at::Tensor scale = spread_groups(grid.scale, spec, K), zero;
  if (grid.zero.defined()) zero = spread_groups(grid.zero, spec, K);
  at::Tensor code = nearest_codes(w_NK, scale, zero, spec);
  if (zero.defined()) code.sub_(zero);
  at::Tensor off = code.mul_(scale).sub_(w_NK);
  return sum_groups(norm == 2 ? off.square_() : off.abs_().pow_(norm), spec);
}

}  // namespace

GroupRange group_range(const at::Tensor& W_NK, const QSpec& spec) {
  GroupRange range{reduce_groups(W_NK, spec, [](const at::Tensor& w) { return at::amin(w, {2}); }),
                   reduce_groups(W_NK, spec, [](const at::Tensor& w) { return at::amax(w, {2}); })};
  if (spec.own_range && !spec.symmetric) return range;
  return {range.low.clamp_max(0), range.high.clamp_min(0)};
}

WeightGrid grid_of(const GroupRange& range, const QSpec& spec) {
  const double steps = spec.qmax() - spec.qmin(), epsilon = epsilon_of(range.low.scalar_type());
  WeightGrid g;
  if (spec.own_range && !spec.symmetric) {
    g.scale = (range.high - range.low).clamp_min(kLeastOwnRange) / steps;
    g.zero = ((range.low / g.scale).round().neg().clamp(0, steps) + spec.qmin()).to(at::kChar);
    return g;
  }
  if (spec.symmetric) {
    g.scale = at::maximum(at::abs(range.low), at::abs(range.high)) / (steps / 2);
  } else {
    g.scale = (range.high - range.low) / steps;
    g.zero = at::nan_to_num((spec.qmin() - range.low / g.scale).round(), 0).clamp(spec.qmin(), spec.qmax()).to(at::kChar);
  }
  g.scale = at::where(g.scale == 0, at::full_like(g.scale, epsilon), g.scale);
  return g;
}

WeightGrid fit_grid(const at::Tensor& W_NK, const QSpec& spec, const std::optional<ClipSearch>& clip) {
  check(W_NK.dim() == 2, "a grid is fitted to a matrix");
  check_spec(spec, W_NK.size(1));
  const GroupRange range = group_range(W_NK, spec);
  WeightGrid best = grid_of(range, spec);
  if (!clip) return best;
  if (clip->steps < 1 || !(clip->norm > 0) || !(clip->max_shrink >= 0 && clip->max_shrink < 1)) {
    throw Error(ErrorKind::usage, "clip search: steps >= 1, norm > 0 and 0 <= max_shrink < 1 are needed");
  }
  const at::Tensor w = W_NK.to(at::kFloat);
  at::Tensor least = clip_error(w, best, spec, clip->norm);
  for (int i = 1; i < clip->candidates(); ++i) {
    const double shrink = 1 - static_cast<double>(i) / clip->steps;
    const WeightGrid trial = grid_of({range.low * shrink, range.high * shrink}, spec);
    const at::Tensor error = clip_error(w, trial, spec, clip->norm);
    const at::Tensor better = error < least;
    least = at::where(better, error, least);
    best.scale = at::where(better, trial.scale, best.scale);
    if (best.zero.defined()) best.zero = at::where(better, trial.zero, best.zero);
  }
  return best;
}

at::Tensor spread_groups(const at::Tensor& per_group_NG, const QSpec& spec, int64_t columns) {
  const int64_t N = per_group_NG.size(0), G = per_group_NG.size(1), group = spec.group <= 0 ? columns : spec.group;
  return per_group_NG.to(at::kFloat).unsqueeze(2).expand({N, G, group}).reshape({N, G * group}).slice(1, 0, columns);
}

at::Tensor sum_groups(const at::Tensor& per_column_NK, const QSpec& spec) {
  return reduce_groups(per_column_NK, spec, [](const at::Tensor& w) { return at::sum(w, {2}); });
}

at::Tensor abs_max_of_groups(const at::Tensor& per_column_NK, const QSpec& spec) {
  return reduce_groups(per_column_NK, spec, [](const at::Tensor& w) { return at::amax(at::abs(w), {2}); });
}

at::Tensor nearest_codes(const at::Tensor& w, const at::Tensor& scale, const at::Tensor& zero, const QSpec& spec) {
  at::Tensor code = w / scale;
  if (zero.defined() && spec.own_range) code.round_();
  if (zero.defined()) code.add_(zero);
  return code.round_().clamp_(spec.qmin(), spec.qmax());
}

QTensor round_on(const at::Tensor& W_NK, const WeightGrid& grid, const QSpec& spec) {
  const int64_t K = W_NK.size(1);
  at::Tensor zero;
  if (grid.zero.defined()) zero = spread_groups(grid.zero, spec, K);
  return {spec, nearest_codes(W_NK.to(at::kFloat), spread_groups(grid.scale, spec, K), zero, spec).to(at::kChar), grid.scale, grid.zero};
}

}  // namespace statera
