// The version of the program and library, as in the project() line of CMakeLists.txt (a test holds them together).
#pragma once

#include <string_view>

namespace statera {

inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace statera
