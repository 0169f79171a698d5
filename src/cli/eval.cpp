// statera eval: benchmarks over a checkpoint.
#include "api/evaluate.h"
#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  EvaluateOptions options;
  if (!in.parse(options)) return 0;
  in.show(evaluate(options, in.progress(), in.cancel()));
  return 0;
}

}  // namespace

extern const Command kCommand_eval{"eval", "perplexity of texts, questions about pictures; with standard errors",
                                   "statera eval MODEL --tasks perplexity --data wiki.txt --max-length 2048 --stride 512\n"
                                   "statera eval MODEL --tasks vqa --data questions.jsonl --metric relaxed --out results\n"
                                   "statera eval MODEL --tasks perplexity,vqa --data perplexity=wiki.jsonl:body --data vqa=questions.jsonl",
                                   run};

}  // namespace statera
