// The YAML files published with MBQ, read with their own key names (lists of options of its two scripts) and turned into a recipe of
// ours: quant/recipes/recipe_file.h reads the result. What such a file leaves out has the default of those scripts.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace statera {

// Whether a document has that form: a mapping, or a list of mappings, with such keys.
bool is_mbq_file(const Json& document);

struct MbqImport {
  Json recipe = Json::object();
  std::vector<std::string> notes;  // what has no meaning here or was understood in a way worth knowing, one line each
};

// `job`: which mapping of a list, from 1; 0: not chosen. Error(usage): a list of several
// without a choice, a job that is not there. Error(bad_file): an unknown key (with the nearest one), a value of another kind.
// Error(unsupported): no method, weights of 16 bits.
MbqImport import_mbq(const Json& document, const std::string& where, int job);

}  // namespace statera
