// AdamW with torch's arithmetic: decoupled decay, bias-corrected moments, eps beside the root. States are fp32; a weight in 16 bits has a
// master in fp32 that takes the steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "train/parameters.h"

namespace statera {

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

class AdamW {
 public:
  AdamW(const std::vector<Parameter>& parameters, AdamWSettings settings);
  // One step; grads, rates and decays by parameter. A gradient counts times `scale` (clipping).
  void step(const std::vector<at::Tensor>& grads, double scale, const std::vector<double>& rates, const std::vector<double>& decays);
  int64_t steps() const { return steps_; }

  struct State {
    at::Tensor m, v;    // f32, the leaf's shape
    at::Tensor master;  // f32; undefined for fp32 weights
  };
  const std::vector<State>& states() const { return states_; }
  // Takes over what an earlier run left; 16-bit weights become their rounded masters.
  void restore(std::vector<State> states, int64_t steps);

 private:
  std::vector<at::Tensor> leaves_;
  std::vector<State> states_;
  AdamWSettings settings_;
  int64_t steps_ = 0;
};

// Sum of an f32 or 16-bit gradient's squares.
double square_sum(const at::Tensor& grad);

// Sum of squares of all gradients, square-rooted; the same for any number of threads.
double global_norm(const std::vector<at::Tensor>& grads);

}  // namespace statera
