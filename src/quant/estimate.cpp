// Counts: a block runs once per observation and once to go on, with gptq once in all (as long as runs may wait, block_runs.h; with experts three
// times); grams, factors and candidates by their matrix products. What is not a matrix product or rounding (attention, norms, disk) is left
// out, so the estimate is low for long sequences.
#include "quant/estimate.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "base/threads.h"
#include "quant/calib/sample.h"
#include "quant/recipes/trial.h"

namespace statera {
namespace {

constexpr double kMeasuredSeconds = 0.08;

// Units of work a second; `work` does `amount` of them.
template <class F>
double rate(double amount, F&& work) {
  using Clock = std::chrono::steady_clock;
  work();  // first touch
  int64_t rounds = 0;
  const auto begin = Clock::now();
  double seconds = 0;
  for (; seconds < kMeasuredSeconds; ++rounds) {
    work();
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return amount * static_cast<double>(rounds) / seconds;
}

double rounding_rate(const OutputPlan& plan) {
  const QSpec spec{plan.layers.front().stored.spec.bits, 64, plan.layers.front().stored.spec.symmetric};
  at::Tensor W = at::empty({512, 1024}, at::kFloat);
  for (int64_t i = 0; i < W.numel(); ++i) W.mutable_data_ptr<float>()[i] = static_cast<float>((i * 7919) % 1009) / 1009.0f - 0.5f;
  auto site = std::make_shared<LinearSite>();
  site->out = W.size(0);
  site->in = W.size(1);
  site->weight = make_dense(W);
  return rate(static_cast<double>(W.numel()), [&] { round_to_nearest(site, spec, "measurement"); });
}

double product_rate() {
  const int64_t n = 384, pieces = std::max(1, num_threads());
  const at::Tensor a = at::empty({n, n}, at::kFloat).fill_(0.5), b = at::empty({n, n}, at::kFloat).fill_(0.25);
  return rate(2.0 * static_cast<double>(n * n * n * pieces), [&] {
    parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) at::matmul(a, b);
    });
  });
}

bool in_tower(const LinearSite& site) { return site.role == Role::vision || site.role == Role::projector; }

struct Counts {
  double weights = 0, operations = 0;
};

Counts count(const OutputPlan& plan, const QuantizeSettings& s) {
  const std::vector<std::string> methods = recipe_methods(s.method);
  const CalibData* data = s.data;
  Counts c;
  const bool tower = std::any_of(plan.layers.begin(), plan.layers.end(), [](const LayerPlan& l) { return in_tower(*l.site); });
  const double all_tokens = data ? static_cast<double>(data->summary.tokens) : 0;
  double patches = 0;
  for (size_t i = 0; data && i < data->samples.size(); ++i) patches += static_cast<double>(data->samples[i].patches);
  std::set<int64_t> sparse;  // blocks whose experts are rounded
  for (const LayerPlan& l : plan.layers) {
    if (l.site->role == Role::expert) sparse.insert(l.site->block);
  }
  double forward = 0, again = 0;  // of the layers that samples run through; of those in such blocks
  for (const LayerChoice& l : plan.choices) {
    const double weights = static_cast<double>(l.site->out) * static_cast<double>(l.site->in);
    if (l.site->block >= 0 && (tower || !in_tower(*l.site))) {
      const double one = 2 * weights * l.site->row_share * (in_tower(*l.site) ? patches : all_tokens);
      forward += one;
      if (sparse.count(l.site->block) && !in_tower(*l.site)) again += one;
    }
  }
  if (data) c.operations += forward;  // on to the next block
  for (const std::string& method : methods) {
    if (method != "rtn" && method != "gptq") c.operations += forward;  // observed; gptq's runs wait for its rounding and go on
    if (method == "gptq") c.operations += 2 * again;                           // no run waits at experts: looked at in two turns
    if (method == "mbq") c.operations += 4 * forward;                          // forward and backward, blocks computed twice
    if (method == "mbq" && s.mbq.distort) c.operations += 4 * forward;         // unrounded: looked at, on to the next; rounded: before each MLP group
  }
  for (const LayerPlan& l : plan.layers) {
    const double N = static_cast<double>(l.stored.out), K = static_cast<double>(l.stored.in);
    c.weights += N * K;
    const double tokens = in_tower(*l.site) ? patches : all_tokens * l.site->row_share;
    const double rows = s.search_tokens > 0 ? std::min(tokens, static_cast<double>(s.search_tokens)) : tokens;
    for (const std::string& method : methods) {
      if (method == "gptq") c.operations += K * K * tokens + K * K * K / 3 + N * K * K + 2 * N * K * K;  // gram, factor, rounding, losses
      if (method == "awq" || method == "mbq") {
        c.weights += (20 + (method == "mbq" && s.mbq.distort ? 2 : 0)) * N * K;
        c.operations += 20 * 2 * N * K * std::min(rows, method == "awq" ? K : rows);
      }
    }
  }
  return c;
}

}  // namespace

PlanDetails::Time estimate_time(const OutputPlan& plan, const QuantizeSettings& s) {
  const Counts c = count(plan, s);
  PlanDetails::Time t;
  t.weights = c.weights;
  t.operations = c.operations;
  t.weights_per_second = rounding_rate(plan);
  t.operations_per_second = product_rate();
  t.seconds = t.weights / t.weights_per_second + t.operations / t.operations_per_second;
  return t;
}

}  // namespace statera
