// See trainer.h.
#include "train/trainer.h"

#include <ATen/ThreadLocalState.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"
#include "train/loss.h"

namespace statera {
namespace {

bool has_router(const Model& model) {
  const auto& linears = model.params.linears;
  return std::any_of(linears.begin(), linears.end(), [](const auto& entry) { return entry.second->role == Role::router; });
}

}  // namespace

Trainer::Trainer(Model& model, std::vector<Parameter> parameters, TrainSettings settings)
    : model_(model), parameters_(std::move(parameters)), settings_(std::move(settings)), optimizer_(parameters_, settings_.adamw) {
  if (parameters_.empty()) throw Error(ErrorKind::usage, "nothing learns: every part is frozen");
  if (settings_.routers.any() && !has_router(model_)) throw Error(ErrorKind::usage, "router losses go with a mixture of experts; this model has no router");
  lanes_.resize(static_cast<size_t>(std::max<int64_t>(1, settings_.lanes)));
  lanes_[0].model = &model_;
  for (const Parameter& p : parameters_) lanes_[0].leaves.push_back(p.leaf);
  for (size_t l = 1; l < lanes_.size(); ++l) {
    lanes_[l].replica = make_replica(model_, parameters_, lanes_[l].leaves);
    lanes_[l].model = lanes_[l].replica.get();
  }
}

std::vector<at::Tensor> Trainer::gradients(std::span<const std::vector<TrainSample>> batches, Step& out) {
  out = {};
  for (const auto& batch : batches) {
    for (const TrainSample& s : batch) {
      out.tokens += s.tokens();
      out.labels += s.labels();
    }
  }
  if (out.labels == 0) throw Error(ErrorKind::bad_file, "a step without any learned token");
  std::vector<PassLoss> sums(lanes_.size());
  const LossOptions how{static_cast<double>(out.labels), static_cast<double>(out.tokens), settings_.routers, settings_.lora_dropout, 0, settings_.checkpointing};
  const Rng draws(settings_.seed, mix64(static_cast<uint64_t>(steps())));
  uint64_t pass = 0;  // of the step
  at::ThreadLocalState state;
  for (const auto& batch : batches) {
    const auto shares = share_out(batch, static_cast<int64_t>(lanes_.size()));
    parallel_for(static_cast<int64_t>(lanes_.size()), 1, [&](int64_t begin, int64_t end) {
      at::ThreadLocalStateGuard same(state);
      for (int64_t l = begin; l < end; ++l) {
        const auto lane = static_cast<size_t>(l);
        if (shares[lane].empty()) continue;
        LossOptions mine = how;
        mine.draw = draws.at(pass + lane);
        sums[lane] += backpropagate(*lanes_[lane].model, join(shares[lane]), mine);
      }
    });
    pass += lanes_.size();
  }
  PassLoss all;
  for (const PassLoss& s : sums) all += s;
  out.loss = all.sum / static_cast<double>(out.labels);
  out.routers = all.routers;
  std::vector<at::Tensor> grads(parameters_.size());
  parallel_for(static_cast<int64_t>(parameters_.size()), 1, [&](int64_t begin, int64_t end) {
    at::ThreadLocalStateGuard same(state);
    at::NoGradGuard no_graph;
    for (int64_t p = begin; p < end; ++p) {
      at::Tensor& sum = grads[static_cast<size_t>(p)];
      for (Lane& lane : lanes_) {
        at::Tensor& g = lane.leaves[static_cast<size_t>(p)].mutable_grad();
        if (!g.defined()) continue;
        if (sum.defined()) {
          sum.add_(g);
        } else {
          sum = g;
        }
        g = at::Tensor();
      }
    }
  });
  out.grad_norm = global_norm(grads);
  return grads;
}

Trainer::Step Trainer::step(std::span<const std::vector<TrainSample>> batches) {
  Step out;
  const std::vector<at::Tensor> grads = gradients(batches, out);
  if (!std::isfinite(out.loss) || !std::isfinite(out.grad_norm))
    throw Error(ErrorKind::bad_file, "step " + std::to_string(steps() + 1) + ": the loss or its gradient is no finite number; lower the learning rate or look at the data (" +
                                         batches[0][0].where + " and after)");
  const double factor = settings_.schedule.factor(steps());
  out.rate = settings_.rates[static_cast<int>(Part::language)] * factor;
  // torch's clip_grad_norm_
  const double scale = settings_.max_grad_norm > 0 ? std::min(1.0, settings_.max_grad_norm / (out.grad_norm + 1e-6)) : 1.0;
  std::vector<double> rates, decays;
  for (const Parameter& p : parameters_) {
    rates.push_back(settings_.rates[static_cast<int>(p.part)] * factor);
    decays.push_back(p.decays ? settings_.weight_decay : 0);
  }
  optimizer_.step(grads, scale, rates, decays);
  return out;
}

std::pair<double, int64_t> Trainer::evaluate(std::span<const TrainSample> samples) const {
  const auto shares = share_out(samples, static_cast<int64_t>(lanes_.size()));
  std::vector<double> sums(lanes_.size(), 0);
  at::ThreadLocalState state;
  parallel_for(static_cast<int64_t>(lanes_.size()), 1, [&](int64_t begin, int64_t end) {
    at::ThreadLocalStateGuard same(state);
    for (int64_t l = begin; l < end; ++l) {
      const auto lane = static_cast<size_t>(l);
      if (!shares[lane].empty()) sums[lane] = loss_sum(*lanes_[lane].model, join(shares[lane]));
    }
  });
  std::pair<double, int64_t> out{0, 0};
  for (double s : sums) out.first += s;
  for (const TrainSample& s : samples) out.second += s.labels();
  return out;
}

}  // namespace statera
