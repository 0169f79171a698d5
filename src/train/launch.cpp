// See launch.h.
#include "train/launch.h"

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace statera {
namespace {

constexpr int64_t kMostRanks = 4096;

std::optional<std::string> value_of(const Variables& variables, const char* name) {
  const char* text = variables(name);
  return text && *text ? std::optional<std::string>(text) : std::nullopt;
}

std::optional<int64_t> number(const Variables& variables, const char* name, int64_t least, int64_t most) {
  const auto text = value_of(variables, name);
  if (!text) return std::nullopt;
  int64_t out = 0;
  const char* end = text->data() + text->size();
  const auto [stop, code] = std::from_chars(text->data(), end, out);
  if (code != std::errc() || stop != end || out < least || out > most)
    throw Error(ErrorKind::usage, std::string(name) + " must be a number from " + std::to_string(least) + " to " + std::to_string(most) + ", is \"" + *text + "\"");
  return out;
}

void below(const char* name, std::optional<int64_t> value, const char* of, std::optional<int64_t> count) {
  if (value && count && *value >= *count)
    throw Error(ErrorKind::usage, std::string(name) + " is " + std::to_string(*value) + " of " + std::to_string(*count) + " (" + of + "): ranks count from 0");
}

}  // namespace

Launch read_launch(const Variables& variables) {
  const auto rank = number(variables, "RANK", 0, kMostRanks - 1), world = number(variables, "WORLD_SIZE", 1, kMostRanks);
  Launch out;
  if (!rank && !world) return out;
  if (!rank || !world) {
    const char *there = rank ? "RANK" : "WORLD_SIZE", *missing = rank ? "WORLD_SIZE" : "RANK";
    throw Error(ErrorKind::usage, std::string(there) + " is set and " + missing + " is not; a launcher (torchrun) sets both, one process alone needs neither");
  }
  below("RANK", rank, "WORLD_SIZE", world);
  const auto local = number(variables, "LOCAL_RANK", 0, kMostRanks - 1), here = number(variables, "LOCAL_WORLD_SIZE", 1, kMostRanks);
  below("LOCAL_RANK", local, "LOCAL_WORLD_SIZE", here);
  below("LOCAL_RANK", local, "WORLD_SIZE", world);
  if (here && *here > *world)
    throw Error(ErrorKind::usage, "LOCAL_WORLD_SIZE is " + std::to_string(*here) + ", more than WORLD_SIZE (" + std::to_string(*world) + ")");
  out.rank = *rank;
  out.world = *world;
  if (out.world == 1) return out;
  const auto host = value_of(variables, "MASTER_ADDR");
  const auto port = number(variables, "MASTER_PORT", 1, 65535);
  if (!host || !port)
    throw Error(ErrorKind::usage, std::string(host ? "MASTER_PORT" : "MASTER_ADDR") + " is not set, and WORLD_SIZE is " + std::to_string(out.world) +
                                      ": ranks meet at MASTER_ADDR:MASTER_PORT (torchrun sets both)");
  out.host = *host;
  out.port = static_cast<uint16_t>(*port);
  out.agents_store = value_of(variables, "TORCHELASTIC_USE_AGENT_STORE") == "True";
  out.attempt = value_of(variables, "TORCHELASTIC_RESTART_COUNT").value_or("0");
  return out;
}

Launch read_launch() {
  return read_launch([](const char* name) { return std::getenv(name); });
}

}  // namespace statera
