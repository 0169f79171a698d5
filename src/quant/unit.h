// UnitWriter: one unit of the plan turned into bytes in the shards. Gives the steps their BlockJob; owns nothing that outlives the unit.
#pragma once

#include <atomic>
#include <future>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/progress.h"
#include "nn/model.h"
#include "ckpt/shards.h"
#include "quant/calib/block_runs.h"
#include "quant/calib/forward.h"
#include "quant/calib/vision.h"
#include "quant/evidence.h"
#include "quant/output_plan.h"
#include "quant/recipe.h"
#include "quant/staging.h"
#include "quant/weight_swap.h"

namespace statera {

struct UnitContext {
  const Model& model;
  const CheckpointSource& source;
  const OutputPlan& plan;
  const Format& format;
  std::vector<ShardFile>& shards;
  Progress& progress;
  const std::atomic<bool>* cancel = nullptr;
  Calibrator* calibrator = nullptr;   // samples for steps that need data
  VisionCalibrator* vision = nullptr; // their pictures, when the tower or its projectors are calibrated, too
  Calibrator* original = nullptr;     // the same samples on unrounded blocks, for steps that ask for them
  VisionCalibrator* original_vision = nullptr;
  ProgressSink samples;               // of runs over them
  RunMemory run_memory;               // of a block's runs
  bool propagate_original = false;    // the next block reads what the unrounded block gives
  std::map<std::string, double>* times = nullptr;  // seconds by phase, added to
};

class UnitWriter : public BlockJob {
 public:
  UnitWriter(const UnitContext& context, const UnitPlan& unit);
  // Runs the steps over the unit's layers, then copies what stays. Returns the line for the journal. Steps change a block's layers in
  // place; they are again what they were at the end of this object.
  JournalEntry run(Recipe& recipe);
  // Shards that were written to, as indices.
  const std::set<size_t>& touched() const { return touched_; }
  bool rewrote() const { return !rewritten_.empty(); }

  const std::string& name() const override { return unit_.name; }
  const Stack* stack() const override;
  int64_t index() const override { return unit_.block; }
  Topology topology() const override { return stack() && unit_.block >= 0 ? stack()->topology(unit_.block) : Topology{}; }
  std::span<const std::shared_ptr<LinearSite>> layers() const override { return phase_; }
  const QSpec& spec(const LinearSite& site) const override { return layer_of(site).stored.spec; }
  int64_t rows() const override { return rows_[0] + rows_[1]; }
  Accumulator* statistics(const LinearSite& site) override;
  void observe(Inputs inputs, const std::map<const LinearSite*, Accumulator*>& into) override;
  void measured(const LinearSite& site, const OutputLoss& loss) override;
  void finish(const LinearSite& site, QTensor q, std::optional<RoundingError> error) override;
  [[noreturn]] void refuse(const LinearSite& site, std::string_view reason) const override;
  void scaled(ScaleRecord record) override;
  void clipped(ClipRecord record) override { entry_.clips.push_back(std::move(record)); }
  void rewrite(const std::string& name, const at::Tensor& value) override;

 private:
  const LayerPlan& layer_of(const LinearSite& site) const;
  bool calibrated() const { return walk_ != nullptr; }
  void find_walk();
  void pass_on(BlockRuns& runs, Calibrator& language, const VisionCalibrator* vision);
  void apply(Step& step);
  float static_scale(const LinearSite& site, const StoredLinear& stored) const;
  static at::Tensor factor_of(const std::map<const LinearSite*, at::Tensor>& map, const LinearSite& site);
  void gather_evidence(const LinearSite& site, const QTensor& q, const std::optional<ActQuant>& act, JournalEntry::Layer& line);
  void note(const std::string& name, const at::Tensor& tensor);
  std::vector<std::vector<std::shared_ptr<LinearSite>>> phases(const Step& step) const;
  void observe(Step& step);
  void save_layers();
  void copy(const std::string& name);
  ShardFile& shard_of(const std::string& name);
  void write_later(NamedTensors tensors);
  void settle();
  void check_cancelled() const;
  const UnitContext& context_;
  const UnitPlan& unit_;
  StackWalk* walk_ = nullptr;   // of the samples that this unit sees, with their place in it
  StackWalk* original_ = nullptr;  // likewise, on unrounded blocks
  int64_t place_ = 0;           // blocks(): behind the last
  std::optional<BlockRuns> runs_;
  int64_t rows_[2] = {0, 0};    // that a layer sees, text and vision
  std::vector<std::shared_ptr<LinearSite>> sites_, phase_;
  std::map<const LinearSite*, std::unique_ptr<Accumulator>> statistics_;
  WeightSwap saved_;
  std::map<std::string, OutputLoss> losses_;     // by path
  std::optional<Evidence> evidence_;
  std::map<const LinearSite*, at::Tensor> in_, out_;  // what folding multiplied a layer's channels by, and divided its rows by
  std::set<std::string> open_;                   // paths of layers not finished yet
  std::map<std::string, at::Tensor> rewritten_;  // internal name -> value
  std::set<size_t> touched_;
  JournalEntry entry_;
  std::future<void> pending_;  // the last layer's tensors on their way; its end waits for them
};

// Asks the kernel to read the unit's source pages ahead.
void prefetch_unit(const CheckpointSource& source, const OutputPlan& plan, const UnitPlan& unit);

}  // namespace statera
