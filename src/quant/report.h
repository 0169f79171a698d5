// QuantizeReport: what a quantization did, or (planned) would do. Numbers only; torch-free, so that api/ headers may hold it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "quant/plan_details.h"

namespace statera {

struct QuantizeReport {
  struct Role {
    std::string role;
    int64_t quantized_layers = 0, kept_layers = 0, kept_tensors = 0;
    uint64_t source_bytes = 0, result_bytes = 0;
  };
  struct Layer {
    std::string name;  // on-disk module
    double error = 0;  // ||W' - W|| / ||W||, Frobenius
    // Of methods that look at activations: ||x (W' - W)|| / ||x W|| over the calibration rows, and the same of round-to-nearest.
    std::optional<double> output_error, rtn_output_error;
  };
  struct Data {  // what a calibrated method looked at
    std::string hash;
    bool bundled = false;
    int64_t samples = 0, tokens = 0, vision_tokens = 0, answer_tokens = 0;
  };
  struct Verification {  // an independent reading of the finished files
    int64_t tensors = 0, scales = 0, layers_decoded = 0;
    double worst_difference = 0;  // |error measured from the files - error when rounding| of the decoded layers
  };

  bool planned_only = false;
  std::optional<PlanDetails> plan;  // when only planned
  Json recipe;                      // every setting, in the form of a recipe file
  Json bits;                        // what a bit budget chose (recipes/sensitivity.h); null without
  std::string out, method, format;
  int64_t w_bits = 0, w_group = 0, a_bits = 16;
  bool symmetric = true;
  uint64_t source_bytes = 0, result_bytes = 0;  // of tensor data
  uint64_t quantized_weights = 0, quantized_bytes = 0;
  std::vector<std::pair<std::string, uint64_t>> files;  // of the output folder, with sizes
  std::vector<Role> roles;
  std::vector<Layer> layers;
  std::optional<Data> data;
  std::vector<std::string> warnings;
  int64_t units = 0, resumed_units = 0;
  uint64_t expected_ram = 0, peak_rss = 0;
  double seconds = 0, rounding_seconds = 0, checking_seconds = 0;
  double gigabytes_per_second = 0;  // source bytes of this run over rounding_seconds
  Verification verified;

  uint64_t disk_bytes() const;
  // Bits that a quantized weight takes, scales and zero points included.
  double bits_per_weight() const;
  Json to_json() const;
  std::string to_text() const;
};

}  // namespace statera
