// Look-ups in the table of formats.
#include "ckpt/format.h"

#include "base/error.h"
#include "base/strings.h"

namespace statera {

const Format& format_named(std::string_view name) {
  std::vector<std::string> names;
  for (const Format* f : formats()) {
    if (name == f->name) return *f;
    names.emplace_back(f->name);
  }
  throw Error(ErrorKind::usage, "unknown checkpoint format \"" + std::string(name) + "\"" + did_you_mean(name, names) +
                                    " (known: " + join(names, ", ") + ")");
}

const Format& format_of(const Json& quantization_config, std::string_view where) {
  std::vector<std::string> names;
  for (const Format* f : formats()) {
    if (f->claims(quantization_config)) return *f;
    names.emplace_back(f->name);
  }
  throw Error(ErrorKind::unsupported, std::string(where) + ": quantization_config: quant_method \"" +
                                          quantization_config.get_string("quant_method", "(none)") +
                                          "\" cannot be read (known: " + join(names, ", ") + ")");
}

}  // namespace statera
