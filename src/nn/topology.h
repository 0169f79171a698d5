// Topology of one block: what calibrated methods may scale, replay, rotate and in which order, as handles and lambdas.
// Checked by laws: folding a random scale through each group, and rotating the residual, leave the logits unchanged.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "nn/linear.h"

namespace statera {

// Readers whose input channels may be multiplied by s while the previous operation's output channels are divided by it.
struct ScaleGroup {
  std::string name;                       // "input_layernorm", "v_proj", ...
  // What produces the channels: parameters of a norm (weight, and bias if any), or rows [begin, begin+count) of a linear layer.
  std::vector<std::shared_ptr<TensorSite>> norm;
  Linear linear;
  int64_t linear_begin = 0, linear_count = 0;
  std::vector<Linear> readers;
  // Channels of the reader served by one produced channel: reader channel c reads produced channel map(c). Empty: the same index.
  std::vector<int64_t> reader_of;
  int64_t channels = 0;                   // number of independent scales (produced channels)
  // Re-runs the part of the block that begins at the group's input, with the current weights (AWQ, MBQ): x [T, channels] -> output.
  std::function<at::Tensor(const at::Tensor&, const Pass&)> replay;
  bool mixes_rows = false;                // replay is an attention: it needs whole sequences and their pass
  // The reader that sees every row where others see some (a router, beside experts). Empty: all readers see all rows.
  Linear whole = {};
};

struct Topology {
  std::vector<ScaleGroup> groups;
  std::vector<std::vector<Linear>> phases;   // quantization order; inputs are collected again after each phase
  std::vector<Linear> residual_readers;      // read the (normalised) residual stream
  std::vector<Linear> residual_writers;      // add to it
  // Norm weights between stream and readers, with the readers of each.
  std::vector<std::pair<std::shared_ptr<TensorSite>, std::vector<Linear>>> residual_norms;
};

// Where the language residual stream begins and ends outside the blocks; with the blocks' residual_* lists it is everything a
// rotation of the stream touches.
struct ResidualEnds {
  std::shared_ptr<TensorSite> embedding;     // [V, H], written row by row
  std::vector<Linear> writers;               // projectors whose rows are spliced into or added to the stream
  std::shared_ptr<TensorSite> final_norm;    // between stream and head
  Linear head;                               // reads it
};

// Multiplies the readers' input channels by scale [channels] and divides the producer's by it: neutral in exact arithmetic.
// Weights of the touched sites become dense in fp32.
void fold_scale(const ScaleGroup& group, const at::Tensor& scale);
// Moves a norm's weight into the input channels of its readers and leaves ones behind: neutral for RMSNorm.
void fold_norm(const std::shared_ptr<TensorSite>& norm, const std::vector<Linear>& readers);
// W <- W R for a reader of rotated rows, and W <- R^T W, b <- b R for a writer of them. R [H, H] orthogonal.
void rotate_reader(const Linear& reader, const at::Tensor& R);
void rotate_writer(const Linear& writer, const at::Tensor& R);

}  // namespace statera
