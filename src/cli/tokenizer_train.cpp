// statera tokenizer train: a vocabulary learnt from texts and conversations.
#include "api/tokenizer_train.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  TokenizerTrainOptions options;
  if (!in.parse(options)) return 0;
  in.show(tokenizer_train(options, in.progress(), in.cancel()));
  return 0;
}

}  // namespace

extern const Command kCommand_tokenizer_train{"tokenizer train", "learn a byte-level BPE tokenizer from texts and conversations",
                                              "statera tokenizer train corpus.txt --out DIR --vocab-size 4096\n"
                                              "statera tokenizer train train.jsonl --out DIR --vocab-size 1024 --json\n"
                                              "statera tokenizer train docs.parquet:body --out DIR --vocab-size 32000 "
                                              "--special '<|endoftext|>' --special '<|im_start|>' --special '<|im_end|>'",
                                              run};

}  // namespace statera
