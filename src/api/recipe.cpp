// See recipe.h.
#include "api/recipe.h"

#include <algorithm>

#include "base/fields.h"
#include "quant/recipes/recipe_file.h"

namespace statera {

std::vector<std::string> apply_recipe(QuantizeOptions& options) {
  if (options.recipe.empty()) return {};
  RecipeFile file = read_recipe(options.recipe, field_names(options));
  const Json was = fields_to_json(options), defaults = fields_to_json(QuantizeOptions{});
  auto given = [&](const std::string& name) {
    const auto& named = options.given;
    return std::find(named.begin(), named.end(), name) != named.end() || !(*was.find(name) == *defaults.find(name));
  };
  auto set = [&](const std::string& name, const Json& value, const std::string& place) {
    Json one = Json::object();
    one.set(name, value);
    fields_from_json(one, options, place);
  };
  for (const RecipeOption& o : file.options) {
    if (o.name == "symmetric") {
      if (given("sym") || given("asym")) continue;
      set(o.value.as_bool(o.place) ? "sym" : "asym", true, o.place);
    } else if (o.name == "override") {
      const std::vector<std::string> flags = options.override;
      set(o.name, o.value, o.place);
      options.override.insert(options.override.end(), flags.begin(), flags.end());
    } else if (!given(o.name)) {
      set(o.name, o.value, o.place);
    }
  }
  return file.notes;
}

}  // namespace statera
