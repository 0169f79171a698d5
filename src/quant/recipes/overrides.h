// Override: how the layers that a pattern finds differ from the rest. Text form "bits=8,group=64,asym:PATTERN" (flags), mapping form
// {pattern, bits, group, symmetric, skip} (recipes). Says nothing of which layers there are (quant/select.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace statera {

struct Override {
  std::string pattern;  // searched for in on-disk module names
  std::optional<int64_t> bits, group;
  std::optional<bool> symmetric;
  bool skip = false;  // stays floating

  std::string text() const;  // as a flag's value
  Json to_json() const;
  bool operator==(const Override&) const = default;
};

// Error(usage) naming what is wrong: no ':', an unknown setting (with the nearest one), one that says nothing, numbers out of range.
Override parse_override(std::string_view text);
// `where` names the place in errors. The same checks.
Override override_from_json(const Json& json, const std::string& where);

}  // namespace statera
