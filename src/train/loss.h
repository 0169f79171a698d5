// loss: the cross-entropy of learned tokens, and its gradients in the leaves of a model. With checkpointing, blocks run without a graph
// and once more when their gradient is taken, so that one block's activations exist at a time besides every block's input.
#pragma once

#include <cstdint>

#include "nn/model.h"
#include "train/batch.h"
#include "train/router_loss.h"

namespace statera {

// Sum of the cross-entropies of all learned tokens, in nats. No gradients, no dropout.
double loss_sum(const Model& model, const TrainBatch& batch);

struct LossOptions {
  double labels = 1;   // learned tokens of the whole step, of which the loss is the mean
  double tokens = 1;   // all tokens of the step: a pass's router losses count by its share of them
  RouterLoss routers;  // coefficients
  double dropout = 0;  // of what adapters read
  uint64_t draw = 0;   // seeds this pass's masks
  bool checkpointing = false;
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

}  // namespace statera
