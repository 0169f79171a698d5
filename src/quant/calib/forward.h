// Calibrator: the samples on their way through the language blocks, and through the head behind them. Vision features are computed once: with
// the tower as the model holds it, or as VisionCalibrator left it.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "quant/calib/walk.h"

namespace statera {

class Calibrator : public StackWalk {
 public:
  int64_t rows_of(size_t sample) const override { return data_.samples[sample].tokens(); }
  // prefix: of the names of its files; two walks in one folder have two.
  Calibrator(const Model& model, const CalibData& data, std::string folder, const std::atomic<bool>* cancel, std::string prefix = "activations-");
  // Called for every layer of the tower when a sample has been seen, and of a block when gradients() is through with it: so whoever mapped the weights
  // can let their pages go, which otherwise all stay. From several threads; the layers are read again.
  using Through = std::function<void(const LinearSite& site)>;
  void when_through(Through through);
  // Makes the state before block `next` available: entered here for 0, left by an earlier run otherwise (Error(mismatch) when it is not
  // there).
  void start(int64_t next, const ProgressSink& sink);
  // Likewise, and never entered here.
  void resume(int64_t next) { open_state(next); }
  // What a sample's placeholders stand for; nothing for samples without pictures.
  using Features = std::function<std::optional<VisualFeatures>(size_t sample)>;
  // The state before block 0, made anew.
  void enter(const Features& features, const ProgressSink& sink);
  // What a gradient at a layer's output is reduced to; called from several threads.
  using Measure = std::function<std::vector<double>(const LinearSite& site, const at::Tensor& G_TN, const Pass& pass)>;
  using Take = std::function<void(const LinearSite& site, size_t sample, const std::vector<double>& values)>;
  // Before block 0 (after start(0)): the mean cross-entropy of the answer tokens of every sample that has both vision and answer tokens,
  // differentiated with respect to the outputs of the residual writers of all blocks, weights as they are. take() hears of the samples in
  // order, whatever the number of threads. A sample's hidden states lie in a file, and only one block's graph exists per thread.
  // Gradients are of the sample's own mean: no factor for the number of samples. Returns how many samples took part.
  int64_t gradients(const Measure& measure, const Take& take, const ProgressSink& sink) const;
  // Bytes of all hidden states of one block end, and of the vision features that blocks add.
  static uint64_t state_bytes(const Model& model, const CalibData& data);

 private:
  Pass pass_of(size_t sample) const override;
  void behind(size_t sample, Pass& pass) const override;
  ModelInputs inputs_of(size_t sample) const;
  struct Measured;
  std::vector<Measured> differentiate(size_t i, const Measure& measure) const;
  // Tells `through_` of these layers.
  void through(const std::vector<const LinearSite*>& sites) const;

  Through through_;
  std::vector<const LinearSite*> tower_;
  std::vector<std::vector<const LinearSite*>> of_block_;  // [blocks()]
};

// Stands in for a rounded layer while calibrating: its values in fp32.
Weight make_calibrated(const QTensor& q);

}  // namespace statera
