// Evidence: what the calibration rows say about the rounding of each layer of a block, by kind of token, beside round-to-nearest of the
// layer as the checkpoint holds it; and which channels of its input stand out. A stratified sample of rows; reported, not acted upon, but that the
// largest input gives static activations their scale.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "nn/pass.h"
#include "nn/qtensor.h"
#include "nn/site.h"
#include "nn/weight.h"

namespace statera {

// Squared errors of a layer's output summed over sampled rows of one kind: of the result, of round-to-nearest, and of the output itself.
struct KindLoss {
  double error = 0, rtn = 0, output = 0;
  int64_t rows = 0, seen = 0;  // sampled, and in all the data
};

// Largest |x| of the channels of a layer's input, over all rows.
struct InputRange {
  double median = 0;     // of the channels
  int64_t outliers = 0;  // channels above ten times the median
  std::vector<std::pair<int64_t, double>> top;  // channel and its largest |x|, up to five, falling
};

struct LayerEvidence {
  KindLoss text, vision;  // answers count as text
  InputRange input;
  // Sums over both kinds, each sampled row standing for as many as its kind's sample was drawn from.
  KindLoss total() const;
};

class Evidence {
 public:
  static constexpr int64_t kRowsPerKind = 256;  // sampled rows of a layer, about
  // Tokens of each kind in all the data; the sample depends on seed and row numbers only.
  Evidence(int64_t text_tokens, int64_t vision_tokens, uint64_t seed);
  // One sample at one layer: x [T, K] before quantization. Layers that read the same tensor one after another share what is kept of it.
  void add(const LinearSite& site, const at::Tensor& x_TK, const Pass& pass);
  bool has(const LinearSite& site) const { return inputs_.count(&site) > 0; }
  // Largest |x| / in_K over all rows (undefined: 1): of the input as it is when in_K is folded into the weight. The layer must have seen rows.
  float largest_input(const LinearSite& site, const at::Tensor& in_K) const;
  // The inputs of the observation are all in.
  void close() {
    last_ = at::Tensor();
    last_input_.reset();
  }
  // q rounds W with its input channels multiplied by in_K and its rows divided by out_N (fp32; undefined: 1). act: how x is rounded
  // when the layer runs. Absent when no row was seen; without sampled rows there are only counts and ranges. Does not depend on the number of threads.
  std::optional<LayerEvidence> measure(const LinearSite& site, const at::Tensor& W_NK, const QTensor& q, const at::Tensor& in_K,
                                       const at::Tensor& out_N, const std::optional<ActQuant>& act) const;

 private:
  struct Input {
    at::Tensor max_K;
    std::vector<at::Tensor> parts;  // sampled rows, f32
    std::vector<int8_t> kinds;      // of the sampled rows: 1 vision, 0 not
    int64_t seen[2] = {0, 0};
  };
  uint64_t threshold_[2], seed_;
  std::map<const LinearSite*, std::shared_ptr<Input>> inputs_;
  at::Tensor last_;
  std::shared_ptr<Input> last_input_;
};

}  // namespace statera
