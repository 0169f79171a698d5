// statera init: a checkpoint of random weights.
#include "api/init.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  InitOptions options;
  if (!in.parse(options)) return 0;
  in.show(init(options, in.progress(), in.cancel()));
  return 0;
}

}  // namespace

extern const Command kCommand_init{"init", "write a checkpoint of seeded random weights",
                                   "statera init qwen3-vl-2b --out DIR --seed 1\n"
                                   "statera init path/to/config.json --out DIR --dtype bf16",
                                   run};

}  // namespace statera
