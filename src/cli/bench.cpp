// statera bench: speed of a model beside the limits of the machine.
#include "api/bench.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  BenchOptions options;
  if (!in.parse(options)) return 0;
  in.show(bench(options, in.progress(), in.cancel()));
  return 0;
}

}  // namespace

extern const Command kCommand_bench{"bench", "speed, memory and energy of a model, beside the limits of the machine",
                                    "statera bench MODEL\n"
                                    "statera bench --preset qwen2-vl-2b --w-bits 4 --w-group 128 --json\n"
                                    "statera bench MODEL --pp 1024 --tg 128 --image 1024x1024 --profile --trace trace.json",
                                    run};

}  // namespace statera
