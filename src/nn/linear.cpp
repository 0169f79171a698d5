// The order inside a linear layer, and the simulated activation quantizer.
#include "nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

#include "base/error.h"
#include "base/rng.h"
#include "nn/describe.h"
#include "nn/dropout.h"
#include "nn/elementwise.h"

namespace statera {

at::Tensor fake_quantize(const at::Tensor& x_TK, const ActQuant& act) {
  const double half = 1 << (act.bits - 1);
  at::Tensor x = x_TK.to(at::kFloat);
  at::Tensor scale = at::amax(at::abs(x), {-1}, true) / (half - 0.5);
  at::Tensor codes = (x / scale.clamp_min(1e-30)).round().clamp(-half, half - 1);
  return (codes * scale).to(x_TK.scalar_type());
}

at::Tensor Linear::operator()(const at::Tensor& x_in, const Pass& pass) const {
  const LinearSite& s = *site_;
  check(s.weight != nullptr, "linear layer without weights");
  const profile::Span span("linear", [&] { return describe_linear(s, x_in); });
  at::Tensor x = x_in.dim() == 2 ? x_in : x_in.reshape({-1, x_in.size(-1)});
  check(x.size(1) == s.in, s.path);
  if (s.input_rotation.defined()) x = at::matmul(x, s.input_rotation.to(x.scalar_type()));
  if (pass.tap) pass.tap->input(s, x, pass);
  at::Tensor y = s.weight->apply(x, s.act ? &*s.act : nullptr);
  if (s.bias.defined()) y = add_bias(std::move(y), s.bias);
  if (s.adapter) {
    const Adapter& a = *s.adapter;
    const at::Tensor read = a.dropout > 0 ? drop(x, a.dropout, mix64(a.draw ^ hash_name(s.path))) : x;
    y = y + at::linear(at::linear(read, a.A.to(x.scalar_type())), a.B.to(x.scalar_type())) * a.scale;
  }
  if (pass.tap) pass.tap->linear(s, x, y, pass);
  if (x_in.dim() == 2) return y;
  std::vector<int64_t> shape = x_in.sizes().vec();
  shape.back() = s.out;
  return y.reshape(shape);
}

}  // namespace statera
