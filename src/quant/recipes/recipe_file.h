// A recipe file: YAML with a list of steps, the precision of weights and activations, data, exceptions. Everything in it is an option that
// quantize has as a flag, too; here it becomes a list of such options by name. The form is in docs/recipes.md.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace statera {

struct RecipeOption {
  std::string name;   // as a flag's: "w_bits", "gptq_damp", "method" ("mbq+gptq"); "symmetric" stands for sym and asym
  Json value;
  std::string place;  // "FILE: weights.bits", for errors
};

struct RecipeFile {
  std::vector<RecipeOption> options;
  std::vector<std::string> notes;  // for the user, one line each
};

// A document in our form. `flags`: names of all options of quantize; those of a step's mapping are `<method>_<key>` among them.
// Error(usage) naming file, path and the nearest key for what is unknown.
RecipeFile recipe_options(const Json& document, const std::string& where, const std::vector<std::string>& flags);

// Reads "FILE" or "FILE#2" (the second job of a list): ours, or one published with MBQ (import_mbq.h).
RecipeFile read_recipe(const std::string& file, const std::vector<std::string>& flags);

}  // namespace statera
