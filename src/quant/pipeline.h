// The pipeline: the only driver of quantization. Plans the whole output, then works unit by unit (output_plan.h): steps
// round its layers, results are encoded and written at their offsets, other tensors copied, source pages released, the shards synced, a
// line added to the journal. Steps that need data see activations block by block: of the tower, when it is quantized
// (calib/vision.h), and of the language stack (calib/forward.h), each with what lies behind its blocks.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "base/progress.h"
#include "quant/output_plan.h"
#include "quant/recipe.h"
#include "quant/report.h"

namespace statera {

struct CalibData;  // calib/sample.h
struct ScaleSet;   // scales_file.h

struct QuantizeSettings {
  std::string method = "rtn";  // names joined by '+' (make_recipe)
  PlanOptions plan;
  uint64_t seed = 0;
  uint64_t max_ram = 0;    // bytes; 0: no limit. Compared with the expectation before work begins
  bool restart = false;    // drop unfinished work
  bool overwrite = false;  // replace an existing checkpoint folder
  std::string version;     // of the program, for manifest and plan identity
  const CalibData* data = nullptr;   // of recipes that need it
  bool propagate_original = false;   // a block's inputs come from unrounded blocks
  int64_t search_tokens = 4096;      // input rows that searching steps keep per layer; 0: all
  double smooth_alpha = 0.5;         // of smoothquant
  std::optional<double> target_bits; // bits per quantized weight, scales included, that a choice of bits by layer may spend (sensitivity.h)
  std::vector<std::string> targets;  // what must load the result (targets.h); a rule that it breaks is an error
  std::vector<std::string> notes;    // for the report
  AwqSettings awq;
  GptqSettings gptq;
  MbqSettings mbq;
  const ScaleSet* scales = nullptr;  // folded in place of those that the method would choose
};

// Whether the method's recipe looks at calibration samples.
bool needs_data(const QuantizeSettings& settings);

struct QuantizeHooks {
  ProgressSink progress;
  const std::atomic<bool>* cancel = nullptr;
  // After a unit is in the journal; for tests that stop a run there.
  std::function<void(size_t units_done)> after_unit;
};

// Error(usage) for combinations that no format or engine takes: 8-bit activations with groups, asymmetric weights or other than 8 or 16
// bits.
void check_settings(const QuantizeSettings& settings);

// What run_quantization would write, to the byte; reads no weights.
QuantizeReport plan_quantization(const Model& model, const CheckpointSource& source, const QuantizeSettings& settings,
                                 const std::string& out);

// Quantizes into `out`, resuming unfinished work of the same plan. A failure keeps finished units for the next run and says so.
QuantizeReport run_quantization(Model& model, const CheckpointSource& source, const QuantizeSettings& settings, const std::string& out,
                                const QuantizeHooks& hooks = {});

}  // namespace statera
