// Lookup in the generated table of models.
#include "base/error.h"
#include "base/strings.h"
#include "nn/model.h"

namespace statera {

const ModelType& model_type(const Json& config) {
  std::string wanted = config.at("model_type", "config.json").as_string("config.json: model_type");
  std::vector<std::string> names;
  for (const ModelType* t : model_types()) {
    if (wanted == t->name) return *t;
    names.push_back(t->name);
    for (const auto& alias : t->aliases) {
      if (wanted == alias) return *t;
    }
  }
  throw Error(ErrorKind::unsupported, "config.json: model_type \"" + wanted + "\" is not supported" + did_you_mean(wanted, names) +
                                          " (supported: " + join(names, ", ") + ")");
}

}  // namespace statera
