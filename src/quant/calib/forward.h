// Calibrator: the samples on their way through the language blocks. Hidden states lie in one mapped file per block end in the staging
// folder, written in full precision and synced before the block counts as done, so memory holds one sample at a time and a killed run
// goes on from the file. Vision features are computed once, with the tower in full precision.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "ckpt/shards.h"
#include "quant/calib/sample.h"

namespace statera {

class Calibrator {
 public:
  Calibrator(const Model& model, const CalibData& data, std::string folder, const std::atomic<bool>* cancel);
  // Makes the state before block `next` available: entered here for 0, left by an earlier run otherwise (Error(mismatch) when it is not
  // there).
  void start(int64_t next, const ProgressSink& sink);
  // Thrown by a tap that has seen all it wants of a sample: the rest of the block is not computed.
  struct Enough {};
  // The block over all samples, in order, one at a time, told to the tap. Results are dropped.
  void observe(int64_t block, Tap& tap) const;
  // The block once more: its results are the inputs of block + 1 and on disk when this returns.
  void advance(int64_t block);
  // What a gradient at a layer's output is reduced to; called from several threads.
  using Measure = std::function<std::vector<double>(const LinearSite& site, const at::Tensor& G_TN, const Pass& pass)>;
  using Take = std::function<void(const LinearSite& site, const std::vector<double>& values)>;
  // Before block 0 (after start(0)): the mean cross-entropy of the answer tokens of every sample that has both vision and answer tokens,
  // differentiated with respect to the outputs of the residual writers of all blocks, weights as they are. take() hears of the samples in
  // order, whatever the number of threads. A sample's hidden states lie in a file, and only one block's graph exists per thread.
  // Gradients are of the sample's own mean: no factor for the number of samples. Returns how many samples took part.
  int64_t gradients(const Measure& measure, const Take& take, const ProgressSink& sink) const;
  // Drops the state before `block`, and what is older.
  void forget_before(int64_t block) const;
  void remove_files() const;
  const CalibData& data() const { return data_; }
  // Hidden states of a sample before the block that comes next: behind the last one, those of the whole stack. [T, H]
  at::Tensor state(size_t sample) const { return hidden(sample); }
  // Bytes of all hidden states of one block end, and of the vision features that blocks add.
  static uint64_t state_bytes(const Model& model, const CalibData& data);

 private:
  std::string state_path(int64_t block) const;
  void enter(const ProgressSink& sink);
  at::Tensor hidden(size_t i) const;
  Pass pass_of(size_t i) const;
  void check_cancelled() const;
  ShardPlan::File plan(const std::string& name) const;
  struct Measured;
  std::vector<Measured> differentiate(size_t i, const Measure& measure) const;
  const Model& model_;
  const CalibData& data_;
  std::string folder_;
  const std::atomic<bool>* cancel_;
  std::optional<SafetensorsFile> state_, entered_;
  int64_t at_ = 0;  // block that reads state_
};

// Dense fp32 weights multiplied in slices of fixed height, so that threads do not change results. Stands in for a rounded layer while
// calibrating.
Weight make_calibrated(const QTensor& q);
// The same for weights that are not rounded, floating [N, K]: trial weights, and the originals beside them.
Weight make_sliced(const at::Tensor& W_NK);

}  // namespace statera
