// launch: what a launcher (torchrun, or anything that sets the same variables) says about this process: its rank among how many, and where
// they meet. Variables only, no connection.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace statera {

struct Launch {
  int64_t rank = 0, world = 1;
  std::string host;        // MASTER_ADDR
  uint16_t port = 0;       // MASTER_PORT
  bool agents_store = false;  // the launcher answers at host:port itself (TORCHELASTIC_USE_AGENT_STORE); else the first rank does
  std::string attempt = "0";  // TORCHELASTIC_RESTART_COUNT: names of an earlier attempt are not ours
};

// A variable's value, or null.
using Variables = std::function<const char*(const char* name)>;

// One process when neither RANK nor WORLD_SIZE is set. Error(usage) for variables that are missing, no numbers, or contradict each other.
Launch read_launch(const Variables& variables);
// Of this process.
Launch read_launch();

}  // namespace statera
