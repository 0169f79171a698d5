// Feed-forward blocks and activations shared by decoders and towers.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "nn/elementwise.h"
#include "nn/linear.h"
#include "nn/scope.h"
#include "nn/topology.h"

namespace statera {

// hidden_act of a config; Error(unsupported) for an unknown name.
Activation parse_activation(const std::string& name);

// What a family calls the three layers.
struct GatedMlpNames {
  const char *gate = "gate_proj", *up = "up_proj", *down = "down_proj";
};

// down(kind(up(x))): a feed-forward block without a gate.
at::Tensor feed_forward(Activation kind, const Linear& up, const Linear& down, const at::Tensor& x, const Pass& pass);

// down(act(gate(x)) * up(x)), gate and up separate or packed as gate_up (gate rows first).
class GatedMlp {
 public:
  GatedMlp() = default;
  GatedMlp(const Scope& scope, int64_t hidden, int64_t intermediate, Activation act, Bias bias, bool packed, const GatedMlpNames& names = {});
  // By value: an input that the caller gives away is gone by the time down runs.
  at::Tensor operator()(at::Tensor x_TH, const Pass& pass) const;
  // The product that down reads. [T, F]
  at::Tensor inner(at::Tensor x_TH, const Pass& pass) const;
  std::vector<Linear> inputs() const;
  const Linear& down() const { return down_proj_; }
  // Where up's rows lie: the layer and its first row.
  std::pair<Linear, int64_t> up() const;
  // down's input channels, made by up's rows.
  ScaleGroup inner_group(std::string name) const;

 private:
  LinearRows gate_rows() const { return {gate_up_proj_ ? &gate_up_proj_ : &gate_proj_, 0, intermediate_}; }
  Linear gate_proj_, up_proj_, gate_up_proj_, down_proj_;
  int64_t intermediate_ = 0;
  Activation act_ = Activation::silu;
};

}  // namespace statera
