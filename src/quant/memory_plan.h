// memory_plan: what a quantization takes of memory, as far as the plan tells. Formulas only; the pipeline states and keeps them (--max-ram).
#pragma once

#include <cstdint>

#include "quant/calib/block_runs.h"
#include "quant/output_plan.h"
#include "quant/pipeline.h"
#include "quant/recipe.h"

namespace statera {

// The program, and of a layer at a time its pages, its codes (a byte each), its encoded tensors.
uint64_t rounding_ram(const OutputPlan& plan);

// What calibration takes beyond the program: the least that it can do with, what each further run side by side adds, and what all samples take that
// wait within a block.
struct CalibrationRam {
  uint64_t least = 0, run = 0, waiting = 0;
};

// Least: a block's rounded weights in fp32, the widest gram and what its factor takes, one sample's activations, one sample's pictures, the rows kept
// for the report, those that a search keeps, the grams of all experts of a block; beside a walk on unrounded blocks, the block folded and rounded once more.
CalibrationRam calibration_ram(const OutputPlan& plan, const Model& model, const QuantizeSettings& s, const Recipe& recipe);

// `needed`: of all that must be. Without --max-ram a quarter of the machine's memory may go to what makes calibration faster.
RunMemory run_memory(const CalibrationRam& ram, uint64_t needed, uint64_t max_ram);

}  // namespace statera
