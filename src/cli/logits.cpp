// statera logits: one forward pass, written as safetensors.
#include "api/logits.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  LogitsOptions options;
  if (!in.parse(options)) return 0;
  in.show(logits(options));
  return 0;
}

}  // namespace

extern const Command kCommand_logits{"logits", "write logits and hidden states of one forward pass",
                                     "statera logits MODEL --messages messages.json --out logits.safetensors\n"
                                     "statera logits MODEL --inputs inputs.safetensors --out logits.safetensors --hidden --dtype fp32",
                                     run};

}  // namespace statera
