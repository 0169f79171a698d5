// GPTQ as a recipe of one step: phase by phase, one gram and one factor for the layers that read the same input. The arithmetic is in
// algo.h; here weights and grams are fetched, results and their loss beside round-to-nearest's handed back.
#include <ATen/TensorOperators.h>

#include <map>

#include "base/error.h"
#include "quant/calib/accumulators.h"
#include "quant/methods/gptq/algo.h"
#include "quant/methods/rtn/algo.h"
#include "quant/recipe.h"
#include "quant/search/gram.h"

namespace statera {
namespace {

class GptqStep : public Step {
 public:
  explicit GptqStep(const GptqSettings& settings) {
    options_.act_order = settings.act_order;
    options_.damp = settings.damp;
    if (settings.clip) options_.clip = ClipSearch{};
  }
  bool needs_data() const override { return true; }
  bool phased() const override { return true; }
  std::unique_ptr<Accumulator> watch(const LinearSite&) override { return std::make_unique<GramAccumulator>(pool_); }

  void apply(BlockJob& job) override {
    pool_ = std::make_shared<GramPool>();
    std::map<const Gram*, GptqFactor> factors;
    for (const auto& site : job.layers()) {
      auto* seen = dynamic_cast<GramAccumulator*>(job.statistics(*site));
      if (!seen || (!seen->gram() && site->role != Role::expert)) job.refuse(*site, "no calibration sample reaches it");
      const at::Tensor W = site->weight->dense().contiguous();
      RtnResult nearest = rtn_rows(W, job.spec(*site));
      if (nearest.nonfinite > 0) job.refuse(*site, "holds NaN or infinite weights");
      // An expert that no token chose: nothing is known of its inputs. The report names it (journal_report.h).
      if (!seen->gram()) {
        job.finish(*site, std::move(nearest.q), RoundingError{nearest.error, nearest.weight});
        continue;
      }
      const at::Tensor& gram = seen->gram()->value();
      auto [factor, fresh] = factors.try_emplace(seen->gram().get());
      if (fresh) factor->second = gptq_factor(gram, options_);
      GptqResult r = gptq(W, factor->second, job.spec(*site), options_);
      const at::Tensor wide = W.to(at::kFloat);
      job.measured(*site, {gram_loss(r.q.dequantize() - wide, gram), gram_loss(nearest.q.dequantize() - wide, gram), gram_loss(wide, gram)});
      job.finish(*site, std::move(r.q));
    }
  }

 private:
  GptqOptions options_;
  std::shared_ptr<GramPool> pool_ = std::make_shared<GramPool>();
};

Recipe make_steps(const RecipeOptions& options) {
  Recipe recipe;
  recipe.push_back(std::make_unique<GptqStep>(options.gptq));
  return recipe;
}

}  // namespace

extern const Method kMethod_gptq{"gptq", "column by column, errors made good by later columns; looks at calibration data", make_steps, true};

}  // namespace statera
