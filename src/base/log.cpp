// The only user of spdlog.
#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

#include "base/error.h"

namespace statera {
namespace {

spdlog::logger& logger() {
  static std::shared_ptr<spdlog::logger> log = [] {
    auto made = std::make_shared<spdlog::logger>("statera", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%^%l%$: %v");
    made->set_level(spdlog::level::warn);
    if (const char* wish = std::getenv("STATERA_LOG")) {
      made->set_level(spdlog::level::from_str(wish));
    }
    return made;
  }();
  return *log;
}

}  // namespace

void set_log_level(LogLevel level) {
  static constexpr spdlog::level::level_enum map[] = {spdlog::level::trace, spdlog::level::debug, spdlog::level::info,
                                                      spdlog::level::warn,  spdlog::level::err,   spdlog::level::off};
  logger().set_level(map[static_cast<int>(level)]);
}

LogLevel parse_log_level(std::string_view name) {
  static constexpr std::string_view names[] = {"trace", "debug", "info", "warn", "error", "off"};
  for (int i = 0; i < 6; ++i) {
    if (names[i] == name) return static_cast<LogLevel>(i);
  }
  throw Error(ErrorKind::usage, "unknown log level \"" + std::string(name) + "\" (trace, debug, info, warn, error, off)");
}

void log_debug(std::string_view message) { logger().debug("{}", message); }
void log_info(std::string_view message) { logger().info("{}", message); }
void log_warn(std::string_view message) { logger().warn("{}", message); }
void log_warn_once(std::string_view message) {
  static std::mutex guard;
  static std::set<std::string, std::less<>> said;
  std::lock_guard lock(guard);
  if (said.emplace(message).second) log_warn(message);
}

}  // namespace statera
