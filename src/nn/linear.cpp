// The order inside a linear layer, and the simulated activation quantizer.
#include "nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

#include <utility>

#include "base/error.h"
#include "base/rng.h"
#include "nn/describe.h"
#include "nn/dropout.h"
#include "nn/elementwise_kernel.h"

namespace statera {

namespace {

at::Tensor rounded(const at::Tensor& x, double half) {
  at::Tensor scale = at::amax(at::abs(x), {-1}, true) / (half - 0.5);
  at::Tensor codes = (x / scale.clamp_min(1e-30)).round().clamp(-half, half - 1);
  return codes * scale;
}

at::Tensor rounded_with(const at::Tensor& x, double scale, double half) { return (x / scale).round().clamp(-half, half - 1) * scale; }

at::Tensor as_rows(const at::Tensor& x) { return x.dim() == 2 ? x : x.reshape({-1, x.size(-1)}); }

// Rows of y in the shape of x.
at::Tensor shaped_as(const at::Tensor& x, const at::Tensor& y) {
  if (x.dim() == 2) return y;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = y.size(1);
  return y.reshape(shape);
}

// Whether the bias may be added to the product as it comes from the kernel, in fp32.
bool adds_bias(const LinearSite& s, const at::Tensor& x) { return s.bias.defined() && is_vector(s.bias) && kernel_reads(x); }

// x W^T and the bias, which a packed weight adds while columns of the product are in the cache.
at::Tensor product(const LinearSite& s, const at::Tensor& x) {
  const ActQuant* act = s.act ? &*s.act : nullptr;
  if (!s.bias.defined()) return s.weight->apply(x, act);
  const WeightRep* weight = s.weight.get();
  if (adds_bias(s, x) && go_together({&weight, 1}, x, act)) return apply_together({&weight, 1}, {&s.bias, 1}, x, act)[0];
  return add_bias(s.weight->apply(x, act), s.bias);
}

// What finishes the inner columns of a feed-forward block together.
struct Inner {
  WeightRows rows, times;
  const Linear *gate = nullptr, *up = nullptr;
  at::Tensor x;  // [T, K]
  const ActQuant* act = nullptr;
  profile::Description describe() const {
    const bool one = !up || &up->site() == &gate->site();
    return one ? describe_linear(gate->site(), x) : describe_together({gate, up}, x);
  }
};
// Nothing where they cannot be (activated_together).
std::optional<Inner> inner_of(const LinearRows& gate, const LinearRows& up, const at::Tensor& x_in, const Pass& pass) {
  if (pass.tap && pass.tap->hears_layers()) return std::nullopt;
  const LinearSite& first = gate.layer->site();
  for (const LinearRows* r : {&gate, &up}) {
    if (!r->layer) continue;
    const LinearSite& s = r->layer->site();
    if (!s.weight || s.input_rotation.defined() || s.adapter || s.act != first.act) return std::nullopt;
  }
  const auto weight_rows = [](const LinearRows& r) {
    return r.layer ? WeightRows{r.layer->site().weight.get(), r.first, r.count, r.layer->site().bias} : WeightRows{};
  };
  Inner inner{weight_rows(gate), weight_rows(up), gate.layer, up.layer, as_rows(x_in), first.act ? &*first.act : nullptr};
  check(inner.x.size(1) == first.in, first.path);
  if (!activates(inner.rows, inner.times, inner.x, inner.act)) return std::nullopt;
  return inner;
}

// What follows bias: the adapter.
at::Tensor adapted(const LinearSite& s, const at::Tensor& x, at::Tensor y) {
  if (!s.adapter) return y;
  const Adapter& a = *s.adapter;
  const at::Tensor read = a.dropout > 0 ? drop(x, a.dropout, mix64(a.draw ^ hash_name(s.path))) : x;
  return y + at::linear(at::linear(read, a.A.to(x.scalar_type())), a.B.to(x.scalar_type())) * a.scale;
}

}  // namespace

at::Tensor fake_quantize(const at::Tensor& x_TK, const ActQuant& act) {
  const double half = 1 << (act.bits - 1);
  const int64_t T = x_TK.size(0), K = x_TK.size(1), group = act.group, whole = group > 0 ? K / group * group : 0;
  const at::Tensor x = x_TK.to(at::kFloat);
  if (act.is_static) return rounded_with(x, act.scale, half).to(x_TK.scalar_type());
  if (group <= 0 || group >= K) return rounded(x, half).to(x_TK.scalar_type());
  at::Tensor y = rounded(x.slice(1, 0, whole).reshape({T, whole / group, group}), half).reshape({T, whole});
  if (whole < K) y = at::cat({y, rounded(x.slice(1, whole, K), half)}, 1);
  return y.to(x_TK.scalar_type());
}

at::Tensor Linear::operator()(const at::Tensor& x_in, const Pass& pass) const {
  const LinearSite& s = *site_;
  check(s.weight != nullptr, "linear layer without weights");
  const profile::Span span("linear", [&] { return describe_linear(s, x_in); });
  at::Tensor x = as_rows(x_in);
  check(x.size(1) == s.in, s.path);
  if (s.input_rotation.defined()) x = at::matmul(x, s.input_rotation.to(x.scalar_type()));
  if (pass.tap) pass.tap->input(s, x, pass);
  at::Tensor y = adapted(s, x, product(s, x));
  if (pass.tap) pass.tap->linear(s, x, y, pass);
  return shaped_as(x_in, y);
}

// A tap that hears layers may stop one before it is computed, and a rotated input is another input: such layers are called one by one.
std::optional<std::vector<at::Tensor>> together(std::initializer_list<const Linear*> layers, const at::Tensor& x_in, const Pass& pass) {
  if (pass.tap && pass.tap->hears_layers()) return std::nullopt;
  std::vector<const WeightRep*> weights;
  const LinearSite& first = (*layers.begin())->site();
  for (const Linear* l : layers) {
    const LinearSite& s = l->site();
    if (!s.weight || s.input_rotation.defined() || s.act != first.act) return std::nullopt;
    weights.push_back(s.weight.get());
  }
  const at::Tensor x = as_rows(x_in);
  check(x.size(1) == first.in, first.path);
  const ActQuant* act = first.act ? &*first.act : nullptr;
  if (!go_together(weights, x, act)) return std::nullopt;
  const profile::Span span("linear", [&] { return describe_together(layers, x); });
  std::vector<at::Tensor> biases;  // those that are added there and then
  for (const Linear* l : layers) biases.push_back(adds_bias(l->site(), x) ? l->site().bias : at::Tensor());
  auto out = apply_together(weights, biases, x, act);
  for (size_t i = 0; i < weights.size(); ++i) {
    const LinearSite& s = layers.begin()[i]->site();
    if (s.bias.defined() && !biases[i].defined()) out[i] = add_bias(std::move(out[i]), s.bias);
    out[i] = shaped_as(x_in, adapted(s, x, std::move(out[i])));
  }
  return out;
}

std::optional<at::Tensor> activated_together(Activation kind, const LinearRows& gate, const LinearRows& up, const at::Tensor& x_in, const Pass& pass) {
  const std::optional<Inner> inner = inner_of(gate, up, x_in, pass);
  if (!inner) return std::nullopt;
  const profile::Span span("linear", [&] { return inner->describe(); });
  return shaped_as(x_in, apply_activated(kind, inner->rows, inner->times, inner->x, inner->act));
}

std::optional<at::Tensor> fed_forward(Activation kind, const LinearRows& gate, const LinearRows& up, const Linear& down, const at::Tensor& x_in, const Pass& pass) {
  const LinearSite& s = down.site();
  if (!s.weight || s.input_rotation.defined() || s.adapter || !s.act) return std::nullopt;
  if (s.bias.defined() && !is_vector(s.bias)) return std::nullopt;
  const std::optional<Inner> inner = inner_of(gate, up, x_in, pass);
  if (!inner || !quantizes_for(*s.weight, *s.act, inner->x.size(0))) return std::nullopt;
  check(s.in == gate.count, s.path);
  std::shared_ptr<const PackedInput> between;
  {
    const profile::Span span("linear", [&] { return inner->describe(); });
    between = apply_activated_for(kind, inner->rows, inner->times, inner->x, inner->act, *s.weight, *s.act);
  }
  const profile::Span span("linear", [&] { return describe_linear(s, inner->x.size(0), inner->x.element_size()); });
  return shaped_as(x_in, apply_to(*s.weight, *between, s.bias));
}

}  // namespace statera
