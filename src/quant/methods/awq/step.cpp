// AWQ as a recipe: the scale search of MBQ without its balance, squared errors and weights only. The arithmetic is in
// algo.h and methods/mbq.
#include "quant/methods/awq/clip_step.h"
#include "quant/methods/mbq/search_step.h"

namespace statera {
namespace {

Recipe make_steps(const RecipeOptions& o) {
  MbqSettings loss{.reweight = false, .squared = true};
  loss.tie_heads = o.awq.tie_heads;
  Recipe recipe;
  recipe.push_back(make_scale_search({loss, {}, o.search_tokens, o.data_tokens, o.seed}));
  if (o.awq.clip) recipe.push_back(make_awq_clip(o.stored));
  return recipe;
}

}  // namespace

extern const Method kMethod_awq{"awq", "channels that matter scaled up before rounding; looks at calibration data", make_steps};

}  // namespace statera
