// batch: training samples laid end to end without padding: ids, positions that start anew in each, bounds, pictures in order, and the
// rows whose next token is learned. No tokenizer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nn/model.h"

namespace statera {

struct TrainSample {
  ModelInputs inputs;    // one sequence, positions and pixel values included
  at::Tensor learned_T;  // i8, 1 at tokens that are learned (what the assistant says, end marker included)
  std::string where;     // "FILE: line 3"
  int64_t tokens() const { return inputs.input_ids.size(0); }
  // Tokens that are predicted: the first one is predicted by none.
  int64_t labels() const;
};

struct TrainBatch {
  ModelInputs inputs;
  at::Tensor rows_R, targets_R;  // i64: rows that predict, and what they should
};

TrainBatch join(std::span<const TrainSample* const> samples);

// What a sample costs to compute: tokens, and patches of its pictures, which cost about as much as tokens do.
int64_t cost_of(const TrainSample& sample);

// Things of these costs over `shares` lists of about the same cost, each in rising order.
std::vector<std::vector<size_t>> share_costs(std::span<const int64_t> costs, int64_t shares);

// Samples over `lanes` lists of about the same number of tokens, by sizes alone; the order within a list is that of the samples.
std::vector<std::vector<const TrainSample*>> share_out(std::span<const TrainSample> samples, int64_t lanes);

}  // namespace statera
