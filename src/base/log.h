// log: the one place where library code says something to the person at the terminal. Goes to stderr through spdlog (log.cpp),
// at the level of STATERA_LOG (trace, debug, info, warn, error, off; default warn) or set_log_level.
#pragma once

#include <string_view>

namespace statera {

enum class LogLevel { trace, debug, info, warn, error, off };
void set_log_level(LogLevel level);
LogLevel parse_log_level(std::string_view name);  // unknown name: Error(usage)
void log_debug(std::string_view message);
void log_info(std::string_view message);
void log_warn(std::string_view message);
// Warns once per process for each distinct text.
void log_warn_once(std::string_view message);

}  // namespace statera
