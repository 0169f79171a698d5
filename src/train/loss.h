// loss: the cross-entropy of learned tokens, and its gradients in the leaves of a model. With checkpointing, blocks run without a graph
// and once more when their gradient is taken, so that one block's activations exist at a time besides every block's input.
#pragma once

#include <cstdint>

#include "nn/model.h"
#include "train/batch.h"
#include "train/router_loss.h"

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

// Sum of the cross-entropies of all learned tokens, in nats. No gradients, no dropout.
double loss_sum(const Model& model, const TrainBatch& batch, const BlockRuns& runs = {});

struct LossOptions {
  double labels = 1;   // learned tokens of the whole step, of which the loss is the mean
  double tokens = 1;   // all tokens of the step: a pass's router losses count by its share of them
  RouterLoss routers;  // coefficients
  double dropout = 0;  // of what adapters read
  uint64_t draw = 0;   // seeds this pass's masks
  BlockRuns runs;
};

struct PassLoss {
  double sum = 0;      // of cross-entropies
  RouterLoss routers;  // times the pass's share of the step's tokens, without coefficients
  PassLoss& operator+=(const PassLoss& other) {
    sum += other.sum;
    routers.aux += other.routers.aux;
    routers.z += other.routers.z;
    return *this;
  }
};

// One forward pass; adds to the leaves the gradient of sum / labels and, times coefficients, of the router losses.
PassLoss backpropagate(const Model& model, const TrainBatch& batch, const LossOptions& options);

// What a process without samples does meanwhile: tells the watch as the others do.
void pass_by(const Model& model, const BlockRuns& runs, bool backward);

}  // namespace statera
