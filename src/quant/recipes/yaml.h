// YAML text to the Json value everything else here works on. The only file that sees the YAML library is yaml.cpp. Plain scalars become
// null, booleans (true, false and their capitals; not yes or on), integers and numbers as in YAML 1.2; quoted ones stay text.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace statera {

// Error(bad_file) "where: line 3: ..." for malformed text, a key twice, keys that are no text, several documents, tags, or more than
// 100000 values (aliases count each time they are used).
Json parse_yaml(std::string_view text, const std::string& where);
// A file of at most 1 MiB. Error(not_found|io|bad_file).
Json read_yaml(const std::string& path);

}  // namespace statera
