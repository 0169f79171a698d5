// finetune_files: the output folder of a training run: checkpoint-N folders (a model that loads by itself, and the state to go on from),
// log.jsonl, run.json, and the trained model at its top. Includes torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "ckpt/checkpoint.h"
#include "ckpt/checkpoint_source.h"
#include "api/adapter_files.h"
#include "train/trainer.h"

namespace statera {

// Where a run stands besides weights and optimizer.
struct RunState {
  int64_t step = 0, position = 0;  // optimizer steps; items of the order taken so far
  int64_t tokens = 0, skipped = 0, lanes = 1, ranks = 1;
  double first_loss = 0;
  template <class V>
  void fields(V& v) {
    v("step", step, "");
    v("position", position, "");
    v("tokens", tokens, "");
    v("skipped", skipped, "");
    v("lanes", lanes, "");
    v("ranks", ranks, "");
    v("first_loss", first_loss, "");
  }
};

// With several processes the first one has it, and the others call the trainer's with_whole_weights and states (save), with_whole_weights
// (finish) and restore beside it.
class RunFolder {
 public:
  // run: what the run computes with (options, sizes of the data); a later call must say the same to go on. Makes the folder.
  // Error(usage) when it holds something else, a finished run, or a run of other options (naming the first that differs).
  RunFolder(std::string path, Json run, bool restart, bool overwrite);
  const std::string& path() const { return path_; }
  // The newest checkpoint folder; absent for a fresh start.
  const std::optional<std::string>& latest() const { return latest_; }

  // model and optimizer beside each other in checkpoint-N, complete or absent. `keep` newest stay, 0: all.
  void save(const Model& model, const Trainer& trainer, const RunState& state, int64_t keep) const;
  // Of the newest checkpoint.
  RunState read_state() const;
  // Puts its weights and optimizer, which took `steps` steps, into the trainer.
  void restore(Trainer& trainer, int64_t steps) const;
  // The trained model at the top of the folder; the run counts as finished then.
  void finish(const Model& model, const Trainer& trainer) const;

  // One line of log.jsonl. Lines behind `step` are dropped when a run goes on.
  void log(const Json& line) const;
  void cut_log(int64_t step) const;

  // What is written and where its other files come from.
  void describe(const Checkpoint& source, Layout layout, at::ScalarType save_dtype, const LoraSettings* lora);

 private:
  void write_model(const std::string& folder, const Model& model, const std::vector<Parameter>& parameters) const;
  void write_state(const std::string& folder, const Trainer& trainer, const RunState& state) const;
  std::vector<std::pair<int64_t, std::string>> checkpoints() const;
  std::string path_;
  std::optional<std::string> latest_;
  const Checkpoint* source_ = nullptr;
  Layout layout_;
  at::ScalarType save_dtype_ = at::kFloat;
  const LoraSettings* lora_ = nullptr;
};

// Every parameter of a model by its name in the files, in its stored shape and `dtype`, as one checkpoint folder: weights, config.json
// with that dtype and without quantization, and the source's other files.
void write_checkpoint(const std::string& folder, const Model& model, const Checkpoint& source, const Layout& layout, at::ScalarType dtype);

}  // namespace statera
