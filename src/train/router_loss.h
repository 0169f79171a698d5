// router_loss: what the routers of a mixture of experts add to a loss, so that all experts are used and logits stay small: transformers'
// load_balancing_loss_func, and the z-loss of ST-MoE (Zoph et al. 2022, equation 5). Both over all rows of all sparse layers of one
// forward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "nn/tap.h"

namespace statera {

struct RouterLoss {
  double aux = 0;  // E * sum over experts of f_e P_e: f_e rows given to expert e, P_e the sum of its probabilities, each by row
  double z = 0;    // mean over rows of the squared logsumexp of the logits
  bool any() const { return aux > 0 || z > 0; }
};

// Listens to one forward pass, and to its blocks again when they run once more for their gradients.
class RouterLosses : public Tap {
 public:
  void router(const LinearSite& site, const at::Tensor& logits_TE, const at::Tensor& probs_TE, const Routing& routing, const Pass& pass) override;
  // The losses, when every block has run. What is heard from here on counts for no value.
  RouterLoss settle();
  // The part of weights.aux * aux + weights.z * z that depends on what was heard with a graph since the last call, as a scalar with that
  // graph; undefined: none. How many rows an expert was given has no gradient.
  at::Tensor term(RouterLoss weights);

 private:
  std::vector<double> rows_, probs_;  // by expert
  double count_ = 0, squares_ = 0;    // rows of all layers; sum of squared logsumexps
  bool settled_ = false;
  std::vector<std::pair<at::Tensor, at::Tensor>> heard_;  // logits, probabilities
};

}  // namespace statera
