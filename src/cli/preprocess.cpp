// statera preprocess: messages to a model's input tensors.
#include "api/preprocess.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  PreprocessOptions options;
  if (!in.parse(options)) return 0;
  in.show(preprocess(options));
  return 0;
}

}  // namespace

extern const Command kCommand_preprocess{"preprocess", "write a model's input tensors for given messages",
                                         "statera preprocess MODEL --messages messages.json --out inputs.safetensors", run};

}  // namespace statera
