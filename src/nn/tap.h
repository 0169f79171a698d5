// Tap: an observer that travels in Pass and is told what flows through the seams. Default no-ops; no hooks, no wrappers.
#pragma once

#include <ATen/core/Tensor.h>

namespace statera {

struct LinearSite;
struct Pass;
struct Routing;
class Stack;

class Tap {
 public:
  virtual ~Tap() = default;
  // Whether it listens to layers and routers, which then run one after another on one thread. A tap that overrides `block` alone says no, and
  // layers that read the same x may run together, experts side by side.
  virtual bool hears_layers() const { return true; }
  // Before a linear layer: x_TK rotated but not quantized. What it throws keeps the layer from being computed.
  virtual void input(const LinearSite& site, const at::Tensor& x_TK, const Pass& pass) {}
  // After it: the same x, y_TN with bias and adapter.
  virtual void linear(const LinearSite& site, const at::Tensor& x_TK, const at::Tensor& y_TN, const Pass& pass) {}
  // A router's logits, its probabilities over all experts (fp32), and which experts got which rows.
  virtual void router(const LinearSite& site, const at::Tensor& logits_TE, const at::Tensor& probs_TE, const Routing& routing, const Pass& pass) {}
  // Output of block i of a stack. h_TH
  virtual void block(const Stack& stack, int64_t i, const at::Tensor& h_TH, const Pass& pass) {}
};

}  // namespace statera
