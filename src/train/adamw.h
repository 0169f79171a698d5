// AdamW with torch's arithmetic: decoupled decay, bias-corrected moments, eps beside the root. Moments are held in fp32, or in fewer bits
// (state_codes.h) between steps, whose arithmetic is fp32 always. A weight in 16 bits has a master in fp32 that takes the steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "train/parameters.h"
#include "train/state_codes.h"

namespace statera {

// Weights of fewer elements (norms, biases, small adapters) have fp32 moments whatever the settings say.
constexpr int64_t kLeastCoded = 4096;

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  StateBits states = StateBits::fp32;
};

class AdamW {
 public:
  AdamW(const std::vector<Parameter>& parameters, AdamWSettings settings);
  // One step; grads, rates and decays by parameter. A gradient counts times `scale` (clipping).
  void step(const std::vector<at::Tensor>& grads, double scale, const std::vector<double>& rates, const std::vector<double>& decays);
  int64_t steps() const { return steps_; }

  struct State {
    at::Tensor m, v;              // f32, bf16 or u8 (codes), the leaf's shape
    at::Tensor m_scale, v_scale;  // f32, one per kStateBlock elements of codes; else undefined
    at::Tensor master;            // f32; undefined for fp32 weights
  };
  const std::vector<State>& states() const { return states_; }
  // What a whole parameter's state begins with; master is its fp32 weight, whatever the weight's own type, and not set.
  State blank_state(const Parameter& parameter) const;
  // Takes over what an earlier run of the same settings left; 16-bit weights become their rounded masters.
  void restore(std::vector<State> states, int64_t steps);

 private:
  std::vector<at::Tensor> leaves_;
  std::vector<uint64_t> names_;  // hashed
  std::vector<State> states_;
  AdamWSettings settings_;
  int64_t steps_ = 0;
};

// Sum of an f32 or 16-bit gradient's squares.
double square_sum(const at::Tensor& grad);

// Sum of squares of all gradients, square-rooted; the same for any number of threads.
double global_norm(const std::vector<at::Tensor>& grads);

}  // namespace statera
