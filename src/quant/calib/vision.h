// VisionCalibrator: the pictures and clips of the samples on their way through the vision tower, those of a sample in one pass. Behind
// the last block lie the projectors, which read the ends of the last and of the tapped blocks; then features for the language stack.
#pragma once

#include "base/progress.h"
#include "quant/calib/walk.h"

namespace statera {

class VisionCalibrator : public StackWalk {
 public:
  int64_t rows_of(size_t sample) const override { return data_.samples[sample].patches; }
  // The model must have a tower. prefix: of the names of its files; two walks in one folder have two.
  VisionCalibrator(const Model& model, const CalibData& data, std::string folder, const std::atomic<bool>* cancel, std::string prefix = "pictures-");
  // Makes the state before block `next` available: entered here for 0, left by an earlier run otherwise (Error(mismatch) when it is not
  // there). blocks(): before the projectors.
  void start(int64_t next, const ProgressSink& sink);
  // Behind the last block: what the language stack is entered with, by the projectors as they stand. Nothing for samples without pictures.
  std::optional<VisualFeatures> features(size_t sample) const;
  // Bytes of all files at once, at most.
  static uint64_t disk_bytes(const Model& model, const CalibData& data);

 private:
  void enter(const ProgressSink& sink);
  VisualFeatures leave(size_t sample, Pass& pass) const;
  Pass pass_of(size_t sample) const override;
  void behind(size_t sample, Pass& pass) const override;
  bool needed_behind(int64_t block) const override;
  const VisionStack& tower_;
};

}  // namespace statera
