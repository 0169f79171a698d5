// statera inspect: what a checkpoint holds.
#include "api/inspect.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  InspectOptions options;
  if (!in.parse(options)) return 0;
  in.show(inspect(options));
  return 0;
}

}  // namespace

extern const Command kCommand_inspect{"inspect", "what a checkpoint holds, and what is wrong with it",
                                      "statera inspect MODEL\n"
                                      "statera inspect MODEL --context 32768 --json",
                                      run};

}  // namespace statera
