// Round-to-nearest as a recipe of one step: every selected layer of the block, one after another, each row-parallel.
#include "base/error.h"
#include "quant/methods/rtn/algo.h"
#include "quant/recipe.h"

namespace statera {
namespace {

class RtnStep : public Step {
 public:
  void apply(BlockJob& job) override {
    for (const auto& site : job.layers()) {
      RtnResult r = rtn_rows(site->weight->dense().contiguous(), job.spec(*site));
      if (r.nonfinite > 0) job.refuse(*site, "holds NaN or infinite weights");
      job.finish(*site, std::move(r.q), RoundingError{r.error, r.weight});
    }
  }
};

Recipe make_steps(const RecipeOptions&) {
  Recipe recipe;
  recipe.push_back(std::make_unique<RtnStep>());
  return recipe;
}

}  // namespace

extern const Method kMethod_rtn{"rtn", "round-to-nearest: data-free, streaming, the baseline of all methods", make_steps, true};

}  // namespace statera
