// See mlp.h.
#include "nn/mlp.h"

#include <ATen/TensorOperators.h>

#include <utility>

#include "base/error.h"

namespace statera {

Activation parse_activation(const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::gelu_tanh;
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "relu") return Activation::relu;
  throw Error(ErrorKind::unsupported, "config.json: hidden_act \"" + name + "\" is not known (silu, gelu, gelu_pytorch_tanh, quick_gelu, relu)");
}

GatedMlp::GatedMlp(const Scope& scope, int64_t hidden, int64_t intermediate, Activation act, Bias bias, bool packed, const GatedMlpNames& names)
    : intermediate_(intermediate), act_(act) {
  if (packed) {
    gate_up_proj_ = scope.linear("gate_up_proj", 2 * intermediate, hidden, bias);
  } else {
    gate_proj_ = scope.linear(names.gate, intermediate, hidden, bias);
    up_proj_ = scope.linear(names.up, intermediate, hidden, bias);
  }
  down_proj_ = scope.linear(names.down, hidden, intermediate, bias);
}

at::Tensor feed_forward(Activation kind, const Linear& up, const Linear& down, const at::Tensor& x, const Pass& pass) {
  const LinearRows all{&up, 0, up.site().out};
  if (auto y = fed_forward(kind, all, {}, down, x, pass)) return *y;
  if (auto a = activated_together(kind, all, {}, x, pass)) return down(*a, pass);
  return down(activate(kind, up(x, pass)), pass);
}

at::Tensor GatedMlp::inner(at::Tensor x, const Pass& pass) const {
  const auto [up_layer, up_first] = up();
  if (auto y = activated_together(act_, gate_rows(), {&up_layer, up_first, intermediate_}, x, pass)) return *y;
  if (gate_up_proj_) {
    at::Tensor both = gate_up_proj_(x, pass);
    return activate_times(act_, both.slice(-1, 0, intermediate_), both.slice(-1, intermediate_, 2 * intermediate_));
  }
  if (auto both = together({&gate_proj_, &up_proj_}, x, pass)) return activate_times(act_, std::move((*both)[0]), (*both)[1]);
  at::Tensor gate = gate_proj_(x, pass);
  return activate_times(act_, std::move(gate), up_proj_(x, pass));
}

at::Tensor GatedMlp::operator()(at::Tensor x, const Pass& pass) const {
  const auto [up_layer, up_first] = up();
  if (auto y = fed_forward(act_, gate_rows(), {&up_layer, up_first, intermediate_}, down_proj_, x, pass)) return *y;
  const at::Tensor a = inner(std::move(x), pass);
  return down_proj_(a, pass);
}

std::vector<Linear> GatedMlp::inputs() const {
  if (gate_up_proj_) return {gate_up_proj_};
  return {gate_proj_, up_proj_};
}

std::pair<Linear, int64_t> GatedMlp::up() const {
  if (gate_up_proj_) return {gate_up_proj_, intermediate_};
  return {up_proj_, 0};
}

ScaleGroup GatedMlp::inner_group(std::string name) const {
  auto [layer, begin] = up();
  ScaleGroup g{.name = std::move(name), .norm = {}, .linear = layer, .linear_begin = begin, .linear_count = intermediate_, .readers = {down_proj_},
               .reader_of = {}, .channels = intermediate_, .replay = {}};
  g.replay = [down = down_proj_](const at::Tensor& x, const Pass& pass) { return down(x, pass); };
  return g;
}

}  // namespace statera
