// The finished folder opened as any program opens it, and run on one calibration sample: its logits against those the pipeline held.
// Layers are decoded from the files one at a time, so memory is one layer's. What verify.h does not show: names, config, folded norms.
#pragma once

#include <cstdint>
#include <string>

#include "quant/calib/forward.h"

namespace statera {

struct LogitCheck {
  int64_t logits = 0;  // compared; 0: nothing was held
  double largest = 0, worst = 0, allowed = 0;  // |logit|, difference, and what accumulation in another order may make of it
};

// The calibrator stands behind the last block. Weights decode to what the pipeline calibrated with and run through the same products, so on one
// machine the difference is 0; `allowed` is for work that another machine resumed: 2^-23 sqrt(widest sum) for each layer of a path
// through the model, relative to the largest logit; with 8-bit activations, where such a difference may move an activation by a whole
// step, a hundredth of it. Error(bad_file) when it is more, or when the folder does not load.
LogitCheck check_logits(const Model& model, const ModelType& type, const Calibrator& calibrator, const std::string& folder, bool rounded_activations);

}  // namespace statera
