// Shards: the optimizer's states, gradients and weights of a run spread over its ranks (ZeRO, Rajbhandari et al. 2020, by slices of
// each parameter). Level 0: every rank has all; 1: states are spread; 2: gradients too, block by block as they come; 3: weights too, and a
// block's are gathered while it runs. Every level computes the same numbers. What is on disk knows nothing of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "train/adamw.h"
#include "train/loss.h"
#include "train/parameters.h"
#include "train/ranks.h"
#include "train/slices.h"

namespace statera {

class Shards : public BlockWatch {
 public:
  Shards(const Ranks& ranks, int64_t level) : ranks_(ranks), level_(level) {}
  // For make_parameters: level 3 keeps this rank's slice of a weight and puts a stand-in of its shape, without memory, into the model.
  LeafMaker leaf_maker();
  // Once, before the trainer. At level 3 the leaves become stand-ins where they are none yet.
  void attach(Model& model, std::vector<Parameter>& parameters);

  const Ranks& ranks() const { return ranks_; }
  // Gradients are summed while they are taken, so they need blocks that run one after another (checkpointing) in a single lane.
  bool by_block() const { return level_ >= 2; }
  // What this rank's optimizer steps: whole parameters at level 0, else flat slices, some of them empty.
  const std::vector<Parameter>& owned() const { return owned_; }

  // What is gathered for a whole step: weights outside of blocks. Around all work with the model.
  void open();
  void close();
  void before(const Stack& stack, int64_t block, bool backward) override;
  void after(const Stack& stack, int64_t block, bool backward) override;
  // Sums over all ranks, of what owned() lists; undefined where no rank has a gradient. Levels 0 and 1: of these whole gradients.
  std::vector<at::Tensor> reduce(std::vector<at::Tensor> grads);
  // Levels 2 and 3: of what arrived since.
  std::vector<at::Tensor> take();
  // Norm of all gradients that reduce() or take() gave to the ranks.
  double norm(const std::vector<at::Tensor>& grads) const;
  // After a step: everybody's slices into the weights of all.
  void spread() const;

  // Every parameter's state and fp32 weight, whole, in order; `take` is called on the first rank.
  using TakeState = std::function<void(size_t parameter, const AdamW::State& state)>;
  void gather_states(const std::vector<AdamW::State>& states, const TakeState& take) const;
  // The other way: `read` is called on the first rank, `master` is the fp32 weight. Returns this rank's states; its fp32 weights are set.
  using ReadState = std::function<AdamW::State(size_t parameter)>;
  std::vector<AdamW::State> scatter_states(const ReadState& read) const;
  // Calls f on the first rank, where parameters and model hold whole weights while it runs.
  void with_whole_weights(const std::function<void(const std::vector<Parameter>&)>& f);

 private:
  struct Unit {
    std::vector<size_t> members;
    std::vector<at::Tensor> leaves;  // level 3, while gathered
  };
  Unit* unit_of(const Stack& stack, int64_t block);
  Slice slice(size_t p, int64_t rank) const { return slice_of(parameters_[p].leaf.numel(), rank, ranks_.world()); }
  Slice held(size_t p, int64_t rank) const;
  at::Tensor keep_slice(const at::Tensor& value, at::ScalarType dtype) const;
  Ranks::Pieces pieces(const std::vector<at::Tensor>& flat, const std::vector<size_t>& members) const;
  // Level 3: whole weights of all ranks' slices; with first_only on the first rank alone, nothing elsewhere.
  std::vector<at::Tensor> whole_leaves(const std::vector<size_t>& members, bool first_only) const;
  void gather(Unit& unit);
  void release(Unit& unit);
  void reduce_unit(Unit& unit);
  std::vector<at::Tensor> sums(const std::vector<at::Tensor>& flat, const std::vector<size_t>& members) const;
  std::vector<bool> anywhere(const std::vector<bool>& here) const;

  const Ranks& ranks_;
  int64_t level_;
  Model* model_ = nullptr;
  std::vector<Parameter> parameters_, owned_;
  std::map<std::string, at::Tensor> early_;          // slices kept before attach(), by name
  std::map<std::pair<bool, int64_t>, Unit> blocks_;  // by (vision, block)
  Unit rest_;
  std::vector<at::Tensor> grads_;  // levels 2 and 3: f32, flat slices
  std::vector<bool> arrived_;
};

}  // namespace statera
