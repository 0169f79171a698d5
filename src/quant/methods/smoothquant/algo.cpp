// The formula and its guards.
#include "quant/methods/smoothquant/algo.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/pow.h>

#include "base/error.h"

namespace statera {

at::Tensor weight_abs_max(std::span<const at::Tensor> readers_NK) {
  check(!readers_NK.empty(), "a group has readers");
  at::Tensor largest;
  for (const at::Tensor& W : readers_NK) {
    at::Tensor columns = at::amax(at::abs(W), {0}).to(at::kFloat);
    largest = largest.defined() ? at::maximum(largest, columns) : columns;
  }
  return largest;
}

at::Tensor smooth_scale(const at::Tensor& x_max_K, const at::Tensor& w_max_K, double alpha) {
  check(x_max_K.dim() == 1 && x_max_K.sizes() == w_max_K.sizes(), "one statistic per channel on both sides");
  if (!(alpha >= 0 && alpha <= 1)) throw Error(ErrorKind::usage, "alpha must be between 0 and 1");
  at::Tensor w = w_max_K.to(at::kFloat).clamp_min(1e-5);
  return (at::pow(x_max_K.to(at::kFloat), alpha) / at::pow(w, 1 - alpha)).clamp_min(1e-5);
}

}  // namespace statera
