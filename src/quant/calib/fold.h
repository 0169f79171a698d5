// fold_group: a scale moved from the inputs of a group's readers into what produces them (nn/topology.h, fold_scale), with everything
// that changed brought back to its stored precision and told to the job, so that what is rounded and written next is what was folded.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/topology.h"
#include "quant/recipe.h"

namespace statera {

// Folds scale f32 [group.channels] and brings all that changed back to its stored type; nobody is told. Error(bad_file) naming the group when
// a scale is not finite and positive: the data or the weights hold no finite numbers.
void fold_stored(const BlockJob& job, const ScaleGroup& group, const at::Tensor& scale);

// record.scale_C f32 [group.channels], as above. Weights of layers that stay floating, biases and norms are written anew.
// The record's group and readers are filled in here and passed on to the job.
void fold_group(BlockJob& job, const ScaleGroup& group, ScaleRecord record);

}  // namespace statera
