// Trainer: one optimizer step after another on a model in memory: samples over lanes, gradients summed in the order of the lanes, clipped,
// applied. A lane is a replica with gradients of its own, so results depend on the number of lanes and never on that of threads. With
// shards (sharding.h) several processes take a step together, each with samples of its own. No files, no data reading.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "train/adamw.h"
#include "train/batch.h"
#include "train/loss.h"
#include "train/router_loss.h"
#include "train/schedule.h"
#include "train/sharding.h"

namespace statera {

struct TrainSettings {
  AdamWSettings adamw;
  Schedule schedule;
  double rates[4] = {1e-5, 1e-5, 1e-5, 1e-5};  // by Part
  double weight_decay = 0, max_grad_norm = 1;  // max_grad_norm 0: no clipping
  int64_t lanes = 1;
  bool checkpointing = false;
  double lora_dropout = 0;
  uint64_t seed = 0;   // of dropout
  RouterLoss routers;  // coefficients; a forward pass is one lane's share of one batch
};

class Trainer {
 public:
  // The parameters' leaves must be in the model's sites (make_parameters). shards: attached to them; null: one process.
  Trainer(Model& model, std::vector<Parameter> parameters, TrainSettings settings, Shards* shards = nullptr);

  struct Step {
    double loss = 0;       // mean over the learned tokens of all samples, those of other processes included
    double grad_norm = 0;  // before clipping
    double rate = 0;       // of the language part
    RouterLoss routers;    // without coefficients; 0 where theirs are
    int64_t tokens = 0, labels = 0;
  };
  // One step over batches that are in memory one after another (accumulation). Each process gives as many batches as the others, some of
  // them perhaps empty. Error(bad_file) when loss or gradient is no number.
  Step step(std::span<const std::vector<TrainSample>> batches);
  // Gradients of the mean loss, by parameter, without a step; undefined where none arrived. Of the optimizer's slices with shards.
  std::vector<at::Tensor> gradients(std::span<const std::vector<TrainSample>> batches, Step& out);
  // Sum of losses and number of learned tokens, of all processes' samples.
  std::pair<double, int64_t> evaluate(std::span<const TrainSample> samples) const;

  const std::vector<Parameter>& parameters() const { return parameters_; }
  int64_t steps() const { return optimizer_.steps(); }
  const AdamW& optimizer() const { return optimizer_; }

  // What a checkpoint holds, whatever the number of processes: on the first process, each parameter's whole state with the fp32 weight as
  // its master, in order.
  void states(const Shards::TakeState& take) const;
  // From such states, after `steps` steps.
  void restore(const Shards::ReadState& read, int64_t steps);
  // Calls f on the first process while model and parameters hold whole weights.
  void with_whole_weights(const std::function<void(const std::vector<Parameter>&)>& f) const;

 private:
  // Numbers of all processes: tokens and labels, and whether a batch has pictures anywhere.
  std::vector<bool> count(std::span<const std::vector<TrainSample>> batches, Step& out) const;
  PassLoss run(std::span<const std::vector<TrainSample>> batches, const Step& step, const std::vector<bool>& vision);
  std::vector<at::Tensor> lane_sums();
  struct Lane {
    const Model* model = nullptr;
    std::unique_ptr<Model> replica;
    std::vector<at::Tensor> leaves;
  };
  Model& model_;
  std::vector<Parameter> parameters_;
  TrainSettings settings_;
  Shards* shards_;
  AdamW optimizer_;
  std::vector<Lane> lanes_;
};

}  // namespace statera
