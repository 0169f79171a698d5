// statera quantize: a quantized checkpoint, or the plan of it.
#include "api/quantize.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  QuantizeOptions options;
  if (!in.parse(options)) return 0;
  in.show(quantize(options, in.progress(), in.cancel()));
  return 0;
}

}  // namespace

extern const Command kCommand_quantize{"quantize", "write a quantized checkpoint, block by block",
                                       "statera quantize MODEL --out DIR --w-bits 4 --w-group 128\n"
                                       "statera quantize MODEL --out DIR --w-bits 8 --a-bits 8\n"
                                       "statera quantize MODEL --out DIR --w-bits 3 --asym --ignore 'layers\\.0\\.' --plan\n"
                                       "statera quantize MODEL --out DIR --method awq+gptq --override bits=8:down_proj --target vllm\n"
                                       "statera quantize MODEL --out DIR --recipe recipe.yaml --target-bits 4.5",
                                       run};

}  // namespace statera
