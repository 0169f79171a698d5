// MBQ as a recipe: the balanced scale search.
#include "quant/methods/mbq/search_step.h"

namespace statera {
namespace {

Recipe make_steps(const RecipeOptions& o) {
  Recipe recipe;
  recipe.push_back(make_scale_search({o.mbq, o.act, o.search_tokens, o.data_tokens, o.seed}));
  return recipe;
}

}  // namespace

extern const Method kMethod_mbq{"mbq", "as awq, vision and answer tokens balanced by how much the loss depends on them; looks at calibration data",
                                make_steps};

}  // namespace statera
