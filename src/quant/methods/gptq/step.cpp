// GPTQ as a recipe of one step: phase by phase, one gram and one factor for the layers that read the same input. The arithmetic is in
// algo.h; here weights and grams are fetched, results and their loss beside round-to-nearest's handed back.
#include <ATen/TensorOperators.h>

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
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
    // Layers by gram, in order. The losses that need it come first: its memory then becomes the factor's.
    std::vector<std::pair<std::shared_ptr<Gram>, std::vector<std::shared_ptr<LinearSite>>>> readers;
    for (const auto& site : job.layers()) {
      auto* seen = dynamic_cast<GramAccumulator*>(job.statistics(*site));
      if (!seen || (!seen->gram() && site->role != Role::expert)) job.refuse(*site, "no calibration sample reaches it");
      if (!seen->gram()) {
        finish_nearest(*site, job);
        continue;
      }
      auto same = std::find_if(readers.begin(), readers.end(), [&](const auto& r) { return r.first == seen->gram(); });
      if (same == readers.end()) same = readers.insert(same, {seen->gram(), {}});
      same->second.push_back(site);
    }
    for (auto& [gram, sites] : readers) {
      std::vector<OutputLoss> losses;
      for (const auto& site : sites) losses.push_back(losses_without(*site, gram->value(), job));
      const GptqFactor factor = gptq_factor_in_place(gram->take(), options_);
      for (size_t i = 0; i < sites.size(); ++i) {
        GptqResult r = gptq(sites[i]->weight->dense().contiguous(), factor, job.spec(*sites[i]), options_);
        losses[i].loss = r.loss;
        job.measured(*sites[i], losses[i]);
        job.finish(*sites[i], std::move(r.q));
      }
    }
  }

 private:
  // An expert that no token chose: nothing is known of its inputs. The report names it (journal_report.h).
  static void finish_nearest(const LinearSite& site, BlockJob& job) {
    RtnResult nearest = rtn_rows(site.weight->dense().contiguous(), job.spec(site));
    if (nearest.nonfinite > 0) job.refuse(site, "holds NaN or infinite weights");
    job.finish(site, std::move(nearest.q), RoundingError{nearest.error, nearest.weight});
  }
  // Of round-to-nearest and of the output itself, by chunks of rows summed in order.
  static OutputLoss losses_without(const LinearSite& site, const at::Tensor& gram, const BlockJob& job) {
    constexpr int64_t kRows = 256;
    const at::Tensor W = site.weight->dense().contiguous();
    const int64_t N = W.size(0), chunks = (N + kRows - 1) / kRows;
    std::vector<OutputLoss> parts(static_cast<size_t>(chunks));
    std::atomic<bool> finite = true;
    parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
      c10::InferenceMode mode;
      for (int64_t i = begin; i < end; ++i) {
        const at::Tensor rows = W.slice(0, i * kRows, std::min(N, (i + 1) * kRows)), wide = rows.to(at::kFloat);
        const RtnResult nearest = rtn_rows(rows, job.spec(site));
        if (nearest.nonfinite > 0) finite = false;
        parts[static_cast<size_t>(i)] = {0, gram_loss(nearest.q.dequantize().sub_(wide), gram), gram_loss(wide, gram)};
      }
    });
    if (!finite) job.refuse(site, "holds NaN or infinite weights");
    OutputLoss sum;
    for (const OutputLoss& part : parts) {
      sum.rtn += part.rtn;
      sum.output += part.output;
    }
    return sum;
  }

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
