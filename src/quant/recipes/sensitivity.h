// What each number of bits costs each layer, measured, and the choice a bit budget makes of it (bit_budget.h). A layer's error is what
// round-to-nearest does to it relative to the layer, |Q(W) - W|^2 / |W|^2, with every input channel weighted by its mean square over the
// calibration data where there are any, times the number of its weights. Layers that engines compute as one are kept together.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "quant/output_plan.h"

namespace statera {

class Calibrator;

// Mean square of a layer's input by channel, f64 [K].
using InputEnergies = std::map<const LinearSite*, at::Tensor>;

// Of the language blocks' chosen layers, from one pass of the samples with weights as they are.
InputEnergies measure_energies(const Model& model, const std::vector<LayerChoice>& layers, Calibrator& calibrator, const ProgressSink& sink);

struct BitChoice {
  struct Set {
    std::vector<std::string> layers;  // on-disk paths
    int bits = 0;
    uint64_t bytes = 0;
    std::vector<double> errors;  // relative, by kBitChoices
  };
  std::vector<Set> sets;
  std::map<std::string, int> bits;    // of each layer
  uint64_t budget = 0, bytes = 0;     // of the quantized layers' tensors, those with bits of their own included
  bool weighted = false;              // by the data
  Json to_json() const;
};
inline constexpr int kBitChoices[] = {2, 3, 4, 5, 6, 8};

// target_bits: bytes of the quantized layers' tensors, scales and zero points included, times 8 over their weights. Layers whose bits an
// override fixes keep them and count. Reads every weight. Error(usage) with the smallest possible target when it is too small, with 8-bit
// activations (whose codes take a byte each), or when no layer's bits are open; Error(bad_file) for a weight that is NaN or infinite.
BitChoice choose_bits(const CheckpointSource& source, const std::vector<LayerChoice>& layers, const PlanOptions& options, double target_bits,
                      const InputEnergies& energies, const ProgressSink& sink, const std::atomic<bool>* cancel);

}  // namespace statera
