// NamePattern: a module name or "re:..." pattern of a checkpoint's config, matched as Python's re.match does: anchored at the start
// only. The pattern comes from a file: its length is limited and matching takes polynomial time.
#pragma once

#include <string>
#include <string_view>

namespace statera {

// Error(unsupported) for patterns that cannot be understood here (look-around, back references) and overlong ones.
bool name_matches(std::string_view pattern, std::string_view name);

}  // namespace statera
