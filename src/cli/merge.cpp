// statera merge: adapters folded into their base model.
#include "api/adapter.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  MergeOptions options;
  if (!in.parse(options)) return 0;
  in.show(merge(options));
  return 0;
}

}  // namespace

extern const Command kCommand_merge{"merge", "fold LoRA adapters into the weights of their base model", "statera merge ADAPTER --base MODEL --out DIR", run};

}  // namespace statera
