// Trainer: one optimizer step after another on a model in memory: samples over lanes, gradients summed in the order of the lanes, clipped,
// applied. A lane is a replica with gradients of its own, so results depend on the number of lanes and never on that of threads.
// No files, no data reading.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "train/adamw.h"
#include "train/batch.h"
#include "train/router_loss.h"
#include "train/schedule.h"

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
  // The parameters' leaves must be in the model's sites (make_parameters).
  Trainer(Model& model, std::vector<Parameter> parameters, TrainSettings settings);

  struct Step {
    double loss = 0;       // mean over the learned tokens of all samples
    double grad_norm = 0;  // before clipping
    double rate = 0;       // of the language part
    RouterLoss routers;    // without coefficients; 0 where theirs are
    int64_t tokens = 0, labels = 0;
  };
  // One step over batches that are in memory one after another (accumulation). Error(bad_file) when loss or gradient is no number.
  Step step(std::span<const std::vector<TrainSample>> batches);
  // Gradients of the mean loss, by parameter, without a step; undefined where none arrived.
  std::vector<at::Tensor> gradients(std::span<const std::vector<TrainSample>> batches, Step& out);
  // Sum of losses and number of learned tokens.
  std::pair<double, int64_t> evaluate(std::span<const TrainSample> samples) const;

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const AdamW& optimizer() const { return optimizer_; }
  void restore(std::vector<AdamW::State> states, int64_t steps) { optimizer_.restore(std::move(states), steps); }
  int64_t steps() const { return optimizer_.steps(); }

 private:
  struct Lane {
    const Model* model = nullptr;
    std::unique_ptr<Model> replica;
    std::vector<at::Tensor> leaves;
  };
  Model& model_;
  std::vector<Parameter> parameters_;
  TrainSettings settings_;
  AdamW optimizer_;
  std::vector<Lane> lanes_;
};

}  // namespace statera
