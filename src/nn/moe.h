// Mixture of experts: a router gives every token to k of E gated MLPs, whose outputs are summed with its weights; optionally one shared
// expert that sees every token. Experts run on the rows that were given to them and on nothing else; sums are taken in the order of
// experts, so the number of threads changes nothing. Where the names of a family differ, MoeConfig says so.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "nn/linear.h"
#include "nn/mlp.h"
#include "nn/scope.h"
#include "nn/topology.h"

namespace statera {

struct MoeConfig {
  int64_t hidden_size = 0;
  int64_t num_experts = 0, num_experts_per_tok = 0, moe_intermediate_size = 0;
  bool norm_topk_prob = false;                   // weights of a token's experts divided by their sum
  int64_t shared_expert_intermediate_size = 0;   // 0: no shared expert; else one, times the sigmoid of a gate of its own
  Activation act = Activation::silu;
  GatedMlpNames names;                           // of an expert's layers
};

// What a router decided for T rows, sorted by expert and then by row.
struct Routing {
  at::Tensor rows, weights;      // i64 and f32 [T * k]: expert 0's rows, expert 1's, ...
  std::vector<int64_t> bounds;   // [E + 1], where each expert's part of both begins
  std::vector<int64_t> active;   // experts with rows, rising
  int64_t count(int64_t expert) const { return bounds[static_cast<size_t>(expert) + 1] - bounds[static_cast<size_t>(expert)]; }
};
// The k largest of each row's probabilities (f32 [T, E]), with gradients where they have any.
Routing route(const at::Tensor& probs_TE, int64_t k, bool normalise);

class Moe {
 public:
  Moe() = default;
  // scope: of "gate", "experts.<e>", "shared_expert", "shared_expert_gate".
  Moe(const Scope& scope, const MoeConfig& config);
  at::Tensor operator()(const at::Tensor& x_TH, const Pass& pass) const;
  explicit operator bool() const { return static_cast<bool>(gate_); }

  const Linear& router() const { return gate_; }
  // Layers that read the block's input: the router first, then the experts', then the shared expert's and its gate.
  std::vector<Linear> readers() const;
  // Layers that write its output: of the experts, then of the shared expert.
  std::vector<Linear> writers() const;
  // Of every expert, and of the shared one, what lies between up_proj and down_proj.
  std::vector<ScaleGroup> inner_groups() const;

 private:
  at::Tensor routed(const at::Tensor& x_TH, const Pass& pass) const;
  at::Tensor shared(const at::Tensor& x_TH, const Pass& pass) const;

  MoeConfig c_;
  Linear gate_, shared_expert_gate_;
  std::vector<GatedMlp> experts_;
  GatedMlp shared_expert_;
};

}  // namespace statera
