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

// ", 8-bit activations with static scales", to follow what is said of weights; empty for floating ones.
std::string spoken_activations(int64_t bits, bool is_static);

struct QuantizeReport {
  struct Role {
    std::string role;
    int64_t quantized_layers = 0, kept_layers = 0, kept_tensors = 0;
    uint64_t source_bytes = 0, result_bytes = 0;
  };
  // Relative errors of a layer's output on rows of one kind: ||x (W' - W)|| / ||x W||, and the same of round-to-nearest.
  struct Kind {
    double output_error = 0, rtn_output_error = 0;
    int64_t rows = 0, seen = 0;  // sampled, and in all the data
  };
  // Largest |x| of the channels of a layer's input.
  struct Input {
    double median = 0, largest = 0;
    int64_t outliers = 0;                         // channels above ten times the median
    std::vector<std::pair<int64_t, double>> top;  // channel, largest |x|
  };
  struct Layer {
    std::string name;  // on-disk module
    double error = 0;  // ||W' - W|| / ||W||, Frobenius; W as folded, where scales were
    // Of methods that look at activations, over both kinds; exact over all rows where the method has the gram, else from the sampled rows.
    std::optional<double> output_error, rtn_output_error;
    bool all_rows = false;
    std::optional<Kind> text, vision;
    std::optional<Input> input;
  };
  struct Scale {  // what was chosen for a group of a block
    std::string block, group;
    std::vector<std::string> readers;
    double ratio = 0, smallest = 0, largest = 0;  // of the scales
    std::vector<double> losses;                   // of every ratio tried, evenly from 0 to below 1
    std::optional<double> rho;
  };
  struct Data {  // what a calibrated method looked at
    std::string hash;
    bool bundled = false;
    int64_t samples = 0, tokens = 0, vision_tokens = 0, answer_tokens = 0;
  };
  struct Experts {  // tokens of the calibration data that reached a quantized layer of an expert
    int64_t layers = 0, least = 0, median = 0, most = 0;
    std::vector<std::string> unreached;  // by none: rounded to nearest whatever the method
  };
  struct Verification {  // an independent reading of the finished files
    int64_t tensors = 0, scales = 0, layers_decoded = 0;
    double worst_difference = 0;  // |error measured from the files - error when rounding| of the decoded layers
    // Of the folder opened anew and run on a calibration sample, against what the run held; 0 logits: nothing was held.
    int64_t logits = 0;
    double worst_logit = 0, allowed_logit = 0, largest_logit = 0;
  };

  bool planned_only = false;
  std::optional<PlanDetails> plan;  // when only planned
  Json recipe;                      // every setting, in the form of a recipe file
  Json bits;                        // what a bit budget chose (recipes/sensitivity.h); null without
  std::string out, method, format;
  int64_t w_bits = 0, w_group = 0, a_bits = 16;
  bool symmetric = true, a_static = false;
  uint64_t source_bytes = 0, result_bytes = 0;  // of tensor data
  uint64_t quantized_weights = 0, quantized_bytes = 0;
  std::vector<std::pair<std::string, uint64_t>> files;  // of the output folder, with sizes
  std::vector<Role> roles;
  std::vector<Layer> layers;
  std::vector<Scale> scales;
  std::string source, scales_sha256, scales_reused;  // name of the source's folder; of the scales written; of those taken over (--scales)
  std::optional<Data> data;
  std::optional<Experts> experts;  // of calibrated runs
  std::vector<std::string> warnings;
  int64_t units = 0, resumed_units = 0;
  uint64_t expected_ram = 0, quick_ram = 0, peak_rss = 0;  // needed, as planned; beyond that, for speed; found
  double seconds = 0, rounding_seconds = 0, checking_seconds = 0;
  double gigabytes_per_second = 0;  // source bytes of this run over rounding_seconds
  std::vector<std::pair<std::string, double>> phase_seconds;  // of this run
  Verification verified;

  uint64_t disk_bytes() const;
  // Bits that a quantized weight takes, scales and zero points included.
  double bits_per_weight() const;
  // Layers whose output is further off than round-to-nearest's, on all rows or on one kind: what a report must not hide.
  struct Worse {
    std::string layer, rows;  // rows: "all", "text" or "vision"
    double output_error = 0, rtn_output_error = 0;
  };
  std::vector<Worse> worse_than_rtn() const;
  // The same for every run with the same source, options and data, interrupted or not: no times, no paths.
  Json record() const;
  // What differs between such runs: folder, times, memory.
  Json this_run() const;
  // Both as one object.
  Json to_json() const;
  std::string to_text() const;
};

}  // namespace statera
