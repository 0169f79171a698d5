// See trainer.h.
#include "train/trainer.h"

#include <ATen/ThreadLocalState.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace statera {
namespace {

bool has_router(const Model& model) {
  const auto& linears = model.params.linears;
  return std::any_of(linears.begin(), linears.end(), [](const auto& entry) { return entry.second->role == Role::router; });
}

}  // namespace

Trainer::Trainer(Model& model, std::vector<Parameter> parameters, TrainSettings settings, Shards* shards)
    : model_(model), parameters_(std::move(parameters)), settings_(std::move(settings)), shards_(shards),
      optimizer_(shards ? shards->owned() : parameters_, settings_.adamw) {
  if (parameters_.empty()) throw Error(ErrorKind::usage, "nothing learns: every part is frozen");
  if (settings_.routers.any() && !has_router(model_)) throw Error(ErrorKind::usage, "router losses go with a mixture of experts; this model has no router");
  lanes_.resize(static_cast<size_t>(std::max<int64_t>(1, settings_.lanes)));
  check(lanes_.size() == 1 || !shards_ || !shards_->by_block(), "gradients summed block by block come from one lane");
  lanes_[0].model = &model_;
  for (const Parameter& p : parameters_) lanes_[0].leaves.push_back(p.leaf);
  for (size_t l = 1; l < lanes_.size(); ++l) {
    lanes_[l].replica = make_replica(model_, parameters_, lanes_[l].leaves);
    lanes_[l].model = lanes_[l].replica.get();
  }
}

std::vector<bool> Trainer::count(std::span<const std::vector<TrainSample>> batches, Step& out) const {
  std::vector<double> numbers(2, 0);
  for (const auto& batch : batches) {
    bool pictures = false;
    for (const TrainSample& s : batch) {
      numbers[0] += static_cast<double>(s.tokens());
      numbers[1] += static_cast<double>(s.labels());
      pictures |= s.inputs.pixel_values.defined() || s.inputs.pixel_values_videos.defined();
    }
    numbers.push_back(pictures ? 1 : 0);
  }
  if (shards_) numbers = shards_->ranks().sum(numbers);
  out.tokens = std::llround(numbers[0]);
  out.labels = std::llround(numbers[1]);
  std::vector<bool> vision;
  for (size_t b = 2; b < numbers.size(); ++b) vision.push_back(numbers[b] > 0);
  return vision;
}

// The sums of this process's losses; gradients are in the lanes' leaves, or with the shards.
PassLoss Trainer::run(std::span<const std::vector<TrainSample>> batches, const Step& step, const std::vector<bool>& vision) {
  std::vector<PassLoss> sums(lanes_.size());
  LossOptions how{.labels = static_cast<double>(step.labels), .tokens = static_cast<double>(step.tokens), .routers = settings_.routers,
                  .dropout = settings_.lora_dropout, .runs = {.checkpointing = settings_.checkpointing}};
  const Rng draws(settings_.seed, mix64(static_cast<uint64_t>(steps())));
  // Passes are counted over lanes, processes and batches.
  const uint64_t rank = shards_ ? static_cast<uint64_t>(shards_->ranks().rank()) : 0, world = shards_ ? static_cast<uint64_t>(shards_->ranks().world()) : 1;
  at::ThreadLocalState state;
  for (size_t b = 0; b < batches.size(); ++b) {
    const uint64_t first = (static_cast<uint64_t>(b) * world + rank) * lanes_.size();
    if (shards_ && shards_->by_block()) {
      how.runs = {true, shards_, vision[b]};
      how.draw = draws.at(first);
      if (batches[b].empty()) {
        pass_by(model_, how.runs, true);
      } else {
        sums[0] += backpropagate(model_, join(share_out(batches[b], 1)[0]), how);
      }
      continue;
    }
    const auto shares = share_out(batches[b], static_cast<int64_t>(lanes_.size()));
    parallel_for(static_cast<int64_t>(lanes_.size()), 1, [&](int64_t begin, int64_t end) {
      at::ThreadLocalStateGuard same(state);
      for (int64_t l = begin; l < end; ++l) {
        const auto lane = static_cast<size_t>(l);
        if (shares[lane].empty()) continue;
        LossOptions mine = how;
        mine.draw = draws.at(first + lane);
        sums[lane] += backpropagate(*lanes_[lane].model, join(shares[lane]), mine);
      }
    });
  }
  PassLoss out;
  for (const PassLoss& s : sums) out += s;
  return out;
}

std::vector<at::Tensor> Trainer::lane_sums() {
  std::vector<at::Tensor> grads(parameters_.size());
  at::ThreadLocalState state;
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
  return grads;
}

std::vector<at::Tensor> Trainer::gradients(std::span<const std::vector<TrainSample>> batches, Step& out) {
  out = {};
  const std::vector<bool> vision = count(batches, out);
  if (out.labels == 0) throw Error(ErrorKind::bad_file, "a step without any learned token");
  if (shards_) shards_->open();
  const PassLoss mine = run(batches, out, vision);
  std::vector<double> all{mine.sum, mine.routers.aux, mine.routers.z};
  if (shards_) all = shards_->ranks().sum(all);
  out.loss = all[0] / static_cast<double>(out.labels);
  out.routers = {all[1], all[2]};
  std::vector<at::Tensor> grads;
  if (!shards_) {
    grads = lane_sums();
    out.grad_norm = global_norm(grads);
    return grads;
  }
  grads = shards_->by_block() ? shards_->take() : shards_->reduce(lane_sums());
  shards_->close();
  out.grad_norm = shards_->norm(grads);
  return grads;
}

Trainer::Step Trainer::step(std::span<const std::vector<TrainSample>> batches) {
  Step out;
  const std::vector<at::Tensor> grads = gradients(batches, out);
  if (!std::isfinite(out.loss) || !std::isfinite(out.grad_norm))
    throw Error(ErrorKind::bad_file, "step " + std::to_string(steps() + 1) + ": the loss or its gradient is no finite number; lower the learning rate or look at the data" +
                                         (batches.empty() || batches[0].empty() ? "" : " (" + batches[0][0].where + " and after)"));
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
  if (shards_) shards_->spread();
  return out;
}

std::pair<double, int64_t> Trainer::evaluate(std::span<const TrainSample> samples) const {
  double sum = 0;
  if (shards_ && shards_->by_block()) {
    Step numbers;
    const std::vector<TrainSample> all(samples.begin(), samples.end());
    const BlockRuns runs{true, shards_, count({&all, 1}, numbers)[0]};
    shards_->open();
    if (all.empty()) {
      pass_by(model_, runs, false);
    } else {
      sum = loss_sum(model_, join(share_out(all, 1)[0]), runs);
    }
    shards_->close();
  } else {
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
    for (double s : sums) sum += s;
  }
  int64_t labels = 0;
  for (const TrainSample& s : samples) labels += s.labels();
  if (!shards_) return {sum, labels};
  const std::vector<double> all = shards_->ranks().sum({sum, static_cast<double>(labels)});
  return {all[0], std::llround(all[1])};
}

void Trainer::states(const Shards::TakeState& take) const {
  const auto& states = optimizer_.states();
  if (shards_) return shards_->gather_states(states, take);
  for (size_t p = 0; p < states.size(); ++p) {
    AdamW::State whole = states[p];
    if (!whole.master.defined()) whole.master = parameters_[p].leaf.detach();
    take(p, whole);
  }
}

void Trainer::restore(const Shards::ReadState& read, int64_t steps) {
  at::NoGradGuard no_graph;
  std::vector<AdamW::State> states;
  if (shards_) {
    states = shards_->scatter_states(read);
  } else {
    for (size_t p = 0; p < parameters_.size(); ++p) {
      states.push_back(read(p));
      if (parameters_[p].leaf.scalar_type() != at::kFloat) continue;
      parameters_[p].leaf.detach().copy_(states.back().master);
      states.back().master = at::Tensor();
    }
  }
  optimizer_.restore(std::move(states), steps);
  if (shards_) shards_->spread();
}

void Trainer::with_whole_weights(const std::function<void(const std::vector<Parameter>&)>& f) const {
  if (shards_) return shards_->with_whole_weights(f);
  f(parameters_);
}

}  // namespace statera
