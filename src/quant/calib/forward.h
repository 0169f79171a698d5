// Calibrator: the samples on their way through the language blocks. Hidden states lie in one mapped file per block end in the staging
// folder, written in full precision and synced before the block counts as done, so memory holds one sample at a time and a killed run
// goes on from the file. Vision features are computed once, with the tower in full precision.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <optional>
#include <string>

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
  // Drops the state before `block`, and what is older.
  void forget_before(int64_t block) const;
  void remove_files() const;
  const CalibData& data() const { return data_; }
  // Bytes of all hidden states of one block end, and of the vision features that blocks add.
  static uint64_t state_bytes(const Model& model, const CalibData& data);

 private:
  std::string state_path(int64_t block) const;
  void enter(const ProgressSink& sink);
  at::Tensor hidden(size_t i) const;
  Pass pass_of(size_t i) const;
  void check_cancelled() const;
  ShardPlan::File plan(const std::string& name) const;
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

}  // namespace statera
