// loss: the cross-entropy of learned tokens, and its gradients in the leaves of a model. With checkpointing, blocks run without a graph
// and once more when their gradient is taken, so that one block's activations exist at a time besides every block's input.
#pragma once

#include "nn/model.h"
#include "train/batch.h"

namespace statera {

// Sum of the cross-entropies of all learned tokens, in nats. No gradients.
double loss_sum(const Model& model, const TrainBatch& batch);

// The same; adds the gradient of sum / `tokens` to the leaves.
double backpropagate(const Model& model, const TrainBatch& batch, double tokens, bool checkpointing);

}  // namespace statera
