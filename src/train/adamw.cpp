// See adamw.h. Elements are independent, so pieces over threads do not change results.
#include "train/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kGrain = 1 << 14;

struct Factors {
  float keep, beta1, beta2, eps, step, root2, scale;  // keep: 1 - rate * decay; step: rate / (1 - beta1^t); root2: sqrt(1 - beta2^t)
};

void update(float* w, const float* g, float* m, float* v, int64_t n, const Factors& f) {
  for (int64_t i = 0; i < n; ++i) {
    const float grad = g[i] * f.scale;
    const float kept = w[i] * f.keep;
    m[i] = m[i] + (1 - f.beta1) * (grad - m[i]);
    v[i] = v[i] * f.beta2 + (1 - f.beta2) * grad * grad;
    w[i] = kept - f.step * m[i] / (std::sqrt(v[i]) / f.root2 + f.eps);
  }
}

}  // namespace

AdamW::AdamW(const std::vector<Parameter>& parameters, AdamWSettings settings) : settings_(settings) {
  for (const Parameter& p : parameters) {
    leaves_.push_back(p.leaf);
    const auto fp32 = p.leaf.options().dtype(at::kFloat).requires_grad(false);
    State s{at::zeros(p.leaf.sizes(), fp32), at::zeros(p.leaf.sizes(), fp32), {}};
    if (p.leaf.scalar_type() != at::kFloat) s.master = p.leaf.detach().to(at::kFloat);
    states_.push_back(std::move(s));
  }
}

void AdamW::step(const std::vector<at::Tensor>& grads, double scale, const std::vector<double>& rates, const std::vector<double>& decays) {
  at::NoGradGuard no_graph;
  ++steps_;
  const double t = static_cast<double>(steps_);
  for (size_t p = 0; p < leaves_.size(); ++p) {
    if (!grads[p].defined()) continue;
    State& s = states_[p];
    const at::Tensor g = grads[p].to(at::kFloat).contiguous();
    at::Tensor w = s.master.defined() ? s.master : leaves_[p].detach();
    check(w.is_contiguous() && g.sizes() == w.sizes(), "gradients have the shape of their weights");
    Factors f{};
    f.keep = static_cast<float>(1 - rates[p] * decays[p]);
    f.beta1 = static_cast<float>(settings_.beta1);
    f.beta2 = static_cast<float>(settings_.beta2);
    f.eps = static_cast<float>(settings_.eps);
    f.step = static_cast<float>(rates[p] / (1 - std::pow(settings_.beta1, t)));
    f.root2 = static_cast<float>(std::sqrt(1 - std::pow(settings_.beta2, t)));
    f.scale = static_cast<float>(scale);
    float *to = w.mutable_data_ptr<float>(), *m = s.m.mutable_data_ptr<float>(), *v = s.v.mutable_data_ptr<float>();
    const float* from = g.const_data_ptr<float>();
    parallel_for(w.numel(), kGrain, [&](int64_t begin, int64_t end) { update(to + begin, from + begin, m + begin, v + begin, end - begin, f); });
    if (s.master.defined()) leaves_[p].detach().copy_(s.master);
  }
}

void AdamW::restore(std::vector<State> states, int64_t steps) {
  check(states.size() == states_.size(), "one state per parameter");
  at::NoGradGuard no_graph;
  states_ = std::move(states);
  steps_ = steps;
  for (size_t p = 0; p < leaves_.size(); ++p) {
    if (states_[p].master.defined()) leaves_[p].detach().copy_(states_[p].master);
  }
}

double square_sum(const at::Tensor& grad) {
  const at::Tensor g = grad.to(at::kFloat).contiguous();
  const float* x = g.const_data_ptr<float>();
  double sum[4] = {};
  const int64_t n = g.numel();
  for (int64_t i = 0; i < n; ++i) sum[i & 3] += static_cast<double>(x[i]) * x[i];
  return sum[0] + sum[1] + sum[2] + sum[3];
}

double global_norm(const std::vector<at::Tensor>& grads) {
  std::vector<double> sums(grads.size(), 0);
  parallel_for(static_cast<int64_t>(grads.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const at::Tensor& grad = grads[static_cast<size_t>(p)];
      if (grad.defined()) sums[static_cast<size_t>(p)] = square_sum(grad);
    }
  });
  double total = 0;
  for (double s : sums) total += s;
  return std::sqrt(total);
}

}  // namespace statera
