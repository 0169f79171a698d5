// Shapes: T rows, E experts, k experts of a row, H hidden. R: rows of one expert.
#include "nn/moe.h"

#include <ATen/ThreadLocalState.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

#include <numeric>

#include "base/error.h"
#include "base/profile.h"
#include "base/threads.h"

namespace statera {

Routing route(const at::Tensor& probs_TE, int64_t k, bool normalise) {
  const profile::Span span("routing");
  const int64_t T = probs_TE.size(0), E = probs_TE.size(1);
  auto [weights_Tk, experts_Tk] = at::topk(probs_TE, k, -1);
  if (normalise) weights_Tk = weights_Tk / weights_Tk.sum(-1, true);
  const at::Tensor chosen = experts_Tk.contiguous();
  const int64_t* expert = chosen.const_data_ptr<int64_t>();
  Routing out;
  out.bounds.assign(static_cast<size_t>(E) + 1, 0);
  for (int64_t i = 0; i < T * k; ++i) ++out.bounds[static_cast<size_t>(expert[i]) + 1];
  std::partial_sum(out.bounds.begin(), out.bounds.end(), out.bounds.begin());
  for (int64_t e = 0; e < E; ++e) {
    if (out.count(e) > 0) out.active.push_back(e);
  }
  // A counting sort: within an expert, rows keep their order.
  std::vector<int64_t> next(out.bounds.begin(), out.bounds.end() - 1);
  out.rows = at::empty({T * k}, at::kLong);
  at::Tensor places = at::empty({T * k}, at::kLong);  // in weights_Tk
  int64_t *row = out.rows.mutable_data_ptr<int64_t>(), *place = places.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < T * k; ++i) {
    const int64_t at = next[static_cast<size_t>(expert[i])]++;
    row[at] = i / k;
    place[at] = i;
  }
  out.weights = at::index_select(weights_Tk.reshape({T * k}), 0, places);
  return out;
}

Moe::Moe(const Scope& scope, const MoeConfig& config) : c_(config) {
  gate_ = scope.linear("gate", c_.num_experts, c_.hidden_size, Bias::none, Role::router);
  const Scope experts = (scope / "experts").as(Role::expert);
  for (int64_t e = 0; e < c_.num_experts; ++e) {
    experts_.emplace_back(experts / e, c_.hidden_size, c_.moe_intermediate_size, c_.act, Bias::none, false, c_.names);
    const double share = static_cast<double>(c_.num_experts_per_tok) / static_cast<double>(c_.num_experts);
    for (const Linear& l : experts_.back().inputs()) l.site().row_share = share;
    experts_.back().down().site().row_share = share;
  }
  if (c_.shared_expert_intermediate_size == 0) return;
  const int64_t width = c_.shared_expert_intermediate_size;
  shared_expert_ = GatedMlp((scope / "shared_expert").as(Role::mlp), c_.hidden_size, width, c_.act, Bias::none, false);
  shared_expert_gate_ = scope.linear("shared_expert_gate", 1, c_.hidden_size, Bias::none, Role::router);
}

at::Tensor Moe::operator()(const at::Tensor& x, const Pass& pass) const {
  at::Tensor y = routed(x, pass);
  return shared_expert_gate_ ? y + shared(x, pass) : y;
}

// differs: in 16-bit activations the products with the weights are taken in fp32, as transformers takes them for Mixtral only.
at::Tensor Moe::routed(const at::Tensor& x, const Pass& pass) const {
  const at::Tensor logits = gate_(x, pass), probs = at::softmax(logits, -1, at::kFloat);
  const Routing routing = route(probs, c_.num_experts_per_tok, c_.norm_topk_prob);
  if (pass.tap) pass.tap->router(gate_.site(), logits, probs, routing, pass);
  auto part = [&](const at::Tensor& of, int64_t e) {
    return of.slice(0, routing.bounds[static_cast<size_t>(e)], routing.bounds[static_cast<size_t>(e) + 1]);
  };
  auto run = [&](int64_t e) {
    const at::Tensor rows = part(routing.rows, e), weights = part(routing.weights, e);
    const at::Tensor y = experts_[static_cast<size_t>(e)](at::index_select(x, 0, rows), pass.rows(rows, weights));
    return (y * weights.unsqueeze(1)).to(x.scalar_type());
  };
  const auto count = static_cast<int64_t>(routing.active.size());
  std::vector<at::Tensor> outputs(routing.active.size());
  auto run_range = [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) outputs[i] = run(routing.active[i]);
  };
  // With experts for all threads, each thread takes whole ones, elementwise work included; with few, the threads share each product.
  // Taps and graphs are for one thread.
  const bool heard = pass.tap && pass.tap->hears_layers();
  if (!heard && !at::GradMode::is_enabled() && count >= 2 * num_threads()) {
    const at::ThreadLocalState state;
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      const at::ThreadLocalStateGuard same(state);
      run_range(begin, end);
    });
  } else {
    run_range(0, count);
  }
  at::Tensor sum = at::zeros_like(x);
  for (size_t i = 0; i < outputs.size(); ++i) sum.index_add_(0, part(routing.rows, routing.active[i]), outputs[i]);
  return sum;
}

at::Tensor Moe::shared(const at::Tensor& x, const Pass& pass) const {
  const at::Tensor weight = at::sigmoid(shared_expert_gate_(x, pass));
  const Pass weighted = pass.rows(at::arange(x.size(0), at::kLong), weight.to(at::kFloat).squeeze(1));
  return weight * shared_expert_(x, weighted);
}

std::vector<Linear> Moe::readers() const {
  std::vector<Linear> out{gate_};
  for (const GatedMlp& e : experts_) {
    for (const Linear& l : e.inputs()) out.push_back(l);
  }
  if (!shared_expert_gate_) return out;
  for (const Linear& l : shared_expert_.inputs()) out.push_back(l);
  out.push_back(shared_expert_gate_);
  return out;
}

std::vector<Linear> Moe::writers() const {
  std::vector<Linear> out;
  for (const GatedMlp& e : experts_) out.push_back(e.down());
  if (shared_expert_gate_) out.push_back(shared_expert_.down());
  return out;
}

std::vector<ScaleGroup> Moe::inner_groups() const {
  std::vector<ScaleGroup> out;
  for (size_t e = 0; e < experts_.size(); ++e) out.push_back(experts_[e].inner_group("experts." + std::to_string(e) + ".up_proj"));
  if (shared_expert_gate_) out.push_back(shared_expert_.inner_group("shared_expert.up_proj"));
  return out;
}

}  // namespace statera
