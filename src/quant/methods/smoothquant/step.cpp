// SmoothQuant as a step: the norms of a block take up what makes their readers' inputs uneven; round-to-nearest follows where no other method rounds.
// Groups behind norms only, as in the paper; the arithmetic is in algo.h.
#include <ATen/ops/maximum.h>

#include "base/error.h"
#include "quant/calib/accumulators.h"
#include "quant/calib/fold.h"
#include "quant/methods/smoothquant/algo.h"
#include "quant/recipe.h"

namespace statera {
namespace {

class SmoothStep : public Step {
 public:
  explicit SmoothStep(double alpha) : alpha_(alpha) {}
  bool needs_data() const override { return true; }
  bool only_scales() const override { return true; }
  std::unique_ptr<Accumulator> watch(const LinearSite&) override { return std::make_unique<AbsMaxAccumulator>(); }

  void apply(BlockJob& job) override {
    for (const ScaleGroup& group : job.topology().groups) {
      if (group.norm.empty()) continue;
      at::Tensor x_max;
      std::vector<at::Tensor> weights;
      for (const Linear& reader : group.readers) {
        auto* seen = dynamic_cast<AbsMaxAccumulator*>(job.statistics(reader.site()));
        // All readers see the same input, or, of experts, each its part of it.
        if (seen && seen->value().defined()) x_max = x_max.defined() ? at::maximum(x_max, seen->value()) : seen->value();
        weights.push_back(reader.site().weight->dense());
      }
      if (!x_max.defined()) continue;  // none of the readers is quantized
      fold_group(job, group, {.group = {}, .readers = {}, .scale_C = smooth_scale(x_max, weight_abs_max(weights), alpha_), .ratio = alpha_});
    }
  }

 private:
  double alpha_;
};

Recipe make_steps(const RecipeOptions& options) {
  Recipe recipe;
  recipe.push_back(std::make_unique<SmoothStep>(options.smooth_alpha));
  return recipe;
}

}  // namespace

extern const Method kMethod_smoothquant{"smoothquant", "outliers of activations moved into weights, before rounding; looks at calibration data",
                                        make_steps};

}  // namespace statera
