// statera compare: KL divergence and agreement of two checkpoints.
#include "api/compare.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  CompareOptions options;
  if (!in.parse(options)) return 0;
  in.show(compare(options, in.progress()));
  return 0;
}

}  // namespace

extern const Command kCommand_compare{"compare", "KL divergence and agreement of two checkpoints",
                                      "statera compare MODEL MODEL-W4\n"
                                      "statera compare MODEL MODEL-W4 --messages messages.json\n"
                                      "statera compare MODEL MODEL-W4 --data chats.jsonl --data wiki.txt --limit 200 --json",
                                      run};

}  // namespace statera
