// statera finetune: trains a model on conversations.
#include "api/finetune.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  FinetuneOptions options;
  MediaFlags media;
  if (!in.parse(options, media)) return 0;
  const FinetuneReport report = finetune(options, media, in.progress(), in.cancel());
  if (report.rank == 0) in.show(report);
  return 0;
}

}  // namespace

extern const Command kCommand_finetune{"finetune", "train a model on conversations with pictures and clips",
                                       "statera finetune MODEL --data talks.jsonl --out DIR --epochs 3 --lr 1e-5\n"
                                       "statera finetune MODEL --data talks.jsonl --out DIR --no-train-vision --merger-lr 1e-4 --eval-data held.jsonl --eval-every 100\n"
                                       "statera finetune MODEL --data talks.jsonl --out DIR --lora-r 16 --lora-target q_proj --lora-target v_proj\n"
                                       "statera finetune MODEL --data talks.jsonl --out DIR --check-only --check-samples\n"
                                       "torchrun --nproc-per-node 2 --no-python statera finetune MODEL --data talks.jsonl --out DIR --zero 1",
                                       run};

}  // namespace statera
