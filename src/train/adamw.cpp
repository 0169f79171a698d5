// See adamw.h. Elements are independent, so pieces over threads do not change results.
#include "train/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kGrain = 64 * kStateBlock;  // pieces begin at multiples, so blocks are whole

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

// The moments of one parameter, wherever they are held; f gets them as floats, from element `at` on, and its changes are kept.
class Moments {
 public:
  Moments(AdamW::State& s, Rng draws) : s_(s), draws_(draws), m_(s.m.mutable_data_ptr()), v_(s.v.mutable_data_ptr()) {}
  template <class F>
  void visit(int64_t begin, int64_t end, F&& f) const {
    if (s_.m.scalar_type() == at::kFloat) return f(begin, end - begin, static_cast<float*>(m_) + begin, static_cast<float*>(v_) + begin);
    for (int64_t at = begin; at < end; at += kStateBlock) {
      const int64_t n = std::min(kStateBlock, end - at);
      float m[kStateBlock], v[kStateBlock];
      uint64_t draws[kStateBlock];
      for (int64_t i = 0; i < n; ++i) draws[i] = draws_.at(static_cast<uint64_t>(at + i));
      if (s_.m_scale.defined()) {
        decode(at, n, m, v);
        f(at, n, m, v);
        encode(at, n, draws, m, v);
      } else {
        widen(at, n, m, v);
        f(at, n, m, v);
        narrow(at, n, draws, m, v);
      }
    }
  }

 private:
  void decode(int64_t at, int64_t n, float* m, float* v) const {
    decode_first(static_cast<const uint8_t*>(m_) + at, s_.m_scale.const_data_ptr<float>()[at / kStateBlock], n, m);
    decode_second(static_cast<const uint8_t*>(v_) + at, s_.v_scale.const_data_ptr<float>()[at / kStateBlock], n, v);
  }
  void encode(int64_t at, int64_t n, const uint64_t* draws, const float* m, const float* v) const {
    s_.m_scale.mutable_data_ptr<float>()[at / kStateBlock] = encode_first(m, n, static_cast<uint8_t*>(m_) + at);
    s_.v_scale.mutable_data_ptr<float>()[at / kStateBlock] = encode_second(v, draws, n, static_cast<uint8_t*>(v_) + at);
  }
  void widen(int64_t at, int64_t n, float* m, float* v) const {
    const uint16_t *from_m = static_cast<const uint16_t*>(m_) + at, *from_v = static_cast<const uint16_t*>(v_) + at;
    for (int64_t i = 0; i < n; ++i) {
      m[i] = std::bit_cast<float>(static_cast<uint32_t>(from_m[i]) << 16);
      v[i] = std::bit_cast<float>(static_cast<uint32_t>(from_v[i]) << 16);
    }
  }
  void narrow(int64_t at, int64_t n, const uint64_t* draws, const float* m, const float* v) const {
    uint16_t *to_m = static_cast<uint16_t*>(m_) + at, *to_v = static_cast<uint16_t*>(v_) + at;
    for (int64_t i = 0; i < n; ++i) {
      to_m[i] = nearest_bf16(std::bit_cast<uint32_t>(m[i]));
      to_v[i] = chance_bf16(std::bit_cast<uint32_t>(v[i]), draws[i]);
    }
  }
  AdamW::State& s_;
  Rng draws_;
  void *m_, *v_;
};

}  // namespace

AdamW::AdamW(const std::vector<Parameter>& parameters, AdamWSettings settings) : settings_(settings) {
  for (const Parameter& p : parameters) {
    leaves_.push_back(p.leaf);
    names_.push_back(hash_name(p.name));
    State s = blank_state(p);
    s.master = at::Tensor();
    if (p.leaf.scalar_type() != at::kFloat) s.master = p.leaf.detach().to(at::kFloat);
    states_.push_back(std::move(s));
  }
}

AdamW::State AdamW::blank_state(const Parameter& p) const {
  const StateBits bits = p.leaf.numel() < kLeastCoded ? StateBits::fp32 : settings_.states;
  const auto held = bits == StateBits::fp32 ? at::kFloat : bits == StateBits::bf16 ? at::kBFloat16 : at::kByte;
  State s{at::zeros(p.leaf.sizes(), held), at::zeros(p.leaf.sizes(), held), {}, {}, at::empty(p.leaf.sizes(), at::kFloat)};
  if (bits == StateBits::eight) {
    const int64_t blocks = (p.leaf.numel() + kStateBlock - 1) / kStateBlock;
    s.m_scale = at::zeros({blocks}, at::kFloat);
    s.v_scale = at::zeros({blocks}, at::kFloat);
  }
  return s;
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
    float* to = w.mutable_data_ptr<float>();
    const float* from = g.const_data_ptr<float>();
    const Moments moments(s, Rng(names_[p], static_cast<uint64_t>(steps_)));
    parallel_for(w.numel(), kGrain, [&](int64_t begin, int64_t end) {
      moments.visit(begin, end, [&](int64_t at, int64_t n, float* m, float* v) { update(to + at, from + at, m, v, n, f); });
    });
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
