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

// Samples over `lanes` lists of about the same number of tokens, by sizes alone; the order within a list is that of the samples.
std::vector<std::vector<const TrainSample*>> share_out(std::span<const TrainSample> samples, int64_t lanes);

}  // namespace statera
