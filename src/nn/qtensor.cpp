// Round-to-nearest and its inverse, in ATen operations on the weight's own dtype so that every rounding happens where the reference's does.
#include "nn/qtensor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>
#include <string>

#include "base/error.h"

namespace statera {
namespace {

double epsilon(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat: return std::numeric_limits<float>::epsilon();
    case at::kDouble: return std::numeric_limits<double>::epsilon();
    case at::kBFloat16: return 0.0078125;
    case at::kHalf: return 0.0009765625;
    default: throw Error(ErrorKind::unsupported, "weights of this dtype cannot be quantized");
  }
}

struct Grid {
  at::Tensor scale, zero;  // [N, 1], zero in the scale's dtype or undefined
};

Grid own_grid(const at::Tensor& w_Ng, const QSpec& spec) {
  const double steps = spec.qmax() - spec.qmin();
  const at::Tensor low = at::amin(w_Ng, {1}, true), span = at::amax(w_Ng, {1}, true) - low;
  Grid g;
  g.scale = span.clamp_min(kLeastOwnRange) / steps;
  g.zero = (low / g.scale).round().neg().clamp(0, steps) + spec.qmin();
  return g;
}

Grid grid_of(const at::Tensor& w_Ng, const QSpec& spec) {
  if (spec.own_range && !spec.symmetric) return own_grid(w_Ng, spec);
  at::Tensor low = at::amin(w_Ng, {1}, true).clamp_max(0);
  at::Tensor high = at::amax(w_Ng, {1}, true).clamp_min(0);
  Grid g;
  double steps = spec.qmax() - spec.qmin();
  if (spec.symmetric) {
    g.scale = at::maximum(at::abs(low), at::abs(high)) / (steps / 2);
  } else {
    g.scale = (high - low) / steps;
  }
  // As the reference does, from the scale before a zero one becomes epsilon: a group of zeros (0/0) gets zero point 0.
  if (!spec.symmetric) g.zero = at::nan_to_num((spec.qmin() - low / g.scale).round(), 0).clamp(spec.qmin(), spec.qmax());
  g.scale = at::where(g.scale == 0, at::zeros_like(g.scale).fill_(epsilon(w_Ng.scalar_type())), g.scale);
  return g;
}

at::Tensor codes_of(const at::Tensor& w_Ng, const Grid& g, const QSpec& spec) {
  at::Tensor scaled = w_Ng / g.scale;
  if (spec.own_range && g.zero.defined()) scaled = scaled.round();
  if (g.zero.defined()) scaled = scaled + g.zero;
  return scaled.round().clamp(spec.qmin(), spec.qmax()).to(at::kChar);
}

}  // namespace

void check_spec(const QSpec& spec, int64_t columns) {
  if (spec.bits < 2 || spec.bits > 8) throw Error(ErrorKind::usage, "weight bits must be between 2 and 8, are " + std::to_string(spec.bits));
  if (spec.group == 0 || spec.group < -1) {
    throw Error(ErrorKind::usage, "weight group must be positive or -1 (whole rows), is " + std::to_string(spec.group));
  }
  check(columns > 0, "empty weight");
}

QTensor rtn(const at::Tensor& W_NK, const QSpec& spec) {
  check(W_NK.dim() == 2, "rtn wants a matrix");
  check_spec(spec, W_NK.size(1));
  const int64_t N = W_NK.size(0), K = W_NK.size(1);
  const int64_t group = spec.group <= 0 ? K : spec.group;
  QTensor out{spec, {}, {}, {}};
  std::vector<at::Tensor> q, scale, zero;
  const int64_t whole = K / group * group;
  auto add = [&](const at::Tensor& w_rows, int64_t groups) {  // [N*groups, g]
    Grid g = grid_of(w_rows, spec);
    q.push_back(codes_of(w_rows, g, spec).reshape({N, -1}));
    scale.push_back(g.scale.reshape({N, groups}));
    if (g.zero.defined()) zero.push_back(g.zero.to(at::kChar).reshape({N, groups}));
  };
  if (whole > 0) add(W_NK.slice(1, 0, whole).reshape({-1, group}), whole / group);
  if (whole < K) add(W_NK.slice(1, whole, K).contiguous(), 1);
  out.q = at::cat(q, 1);
  out.scale = at::cat(scale, 1);
  if (!zero.empty()) out.zero = at::cat(zero, 1);
  return out;
}

at::Tensor QTensor::dequantize(at::ScalarType dtype) const {
  const int64_t N = rows(), K = columns();
  const int64_t group = spec.group <= 0 ? K : spec.group;
  auto spread = [&](const at::Tensor& per_group) {
    at::Tensor wide = per_group.to(at::kFloat);
    if (wide.size(1) == 1) return wide;
    return wide.unsqueeze(2).expand({N, wide.size(1), group}).reshape({N, -1}).slice(1, 0, K);
  };
  at::Tensor w = q.to(at::kFloat);
  if (zero.defined()) w = w - spread(zero);
  return (w * spread(scale)).to(dtype);
}

int64_t QTensor::bytes() const {
  int64_t total = (q.numel() * spec.bits + 7) / 8 + scale.numel() * static_cast<int64_t>(scale.element_size());
  if (zero.defined()) total += (zero.numel() * spec.bits + 7) / 8;
  return total;
}

}  // namespace statera
