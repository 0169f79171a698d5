// loss: the cross-entropy of learned tokens, and its gradients in the leaves of a model. With checkpointing, blocks run without a graph
// and once more when their gradient is taken, so that one block's activations exist at a time besides every block's input.
#pragma once

#include "nn/model.h"
#include "train/batch.h"

namespace statera {

// Told around every run of a block, in the same order in every process whatever its samples are: what has its weights or gradients
// elsewhere brings and takes them there.
class BlockWatch {
 public:
  virtual ~BlockWatch() = default;
  virtual void before(const Stack& stack, int64_t block, bool backward) = 0;
  virtual void after(const Stack& stack, int64_t block, bool backward) = 0;
};

// How blocks run. With a watch they always run one by one as with checkpointing.
struct BlockRuns {
  bool checkpointing = false;
  BlockWatch* watch = nullptr;
  bool vision = false;  // with a watch: some process's samples have pictures, so the tower is gone through
};

// Sum of the cross-entropies of all learned tokens, in nats. No gradients.
double loss_sum(const Model& model, const TrainBatch& batch, const BlockRuns& runs = {});

// The same; adds the gradient of sum / `tokens` to the leaves.
double backpropagate(const Model& model, const TrainBatch& batch, double tokens, const BlockRuns& runs = {});

// What a process without samples does meanwhile: tells the watch as the others do.
void pass_by(const Model& model, const BlockRuns& runs, bool backward);

}  // namespace statera
