// Phase by phase, each layer on the gram of all its input rows. Queries and keys keep their range, as AWQ's authors leave them: their
// outputs meet in a product, which an error of each alone says little about.
// differs: the gram of all rows in place of 512 sampled ones.
#include "quant/methods/awq/clip_step.h"

#include <ATen/ops/zeros.h>

#include <map>

#include "base/error.h"
#include "base/strings.h"
#include "quant/calib/accumulators.h"
#include "quant/methods/awq/algo.h"
#include "quant/scales_file.h"

namespace statera {
namespace {

bool makes_scores(const LinearSite& site) {
  const std::string name = site.path.substr(site.path.rfind('.') + 1);
  return (site.role == Role::attention || site.role == Role::vision) && (name == "q_proj" || name == "k_proj" || name == "qkv_proj" || name == "qkv");
}

void clip(BlockJob& job, const std::shared_ptr<LinearSite>& site, ClipRecord record) {
  const at::Tensor W = site->weight->dense().contiguous();
  const QSpec& spec = job.spec(*site);
  site->weight = make_dense(clamp_groups(W, awq_bounds(W, record.shrink_NG, spec, record.steps), spec));
  job.clipped(std::move(record));
}

class AwqClipStep : public Step {
 public:
  bool needs_data() const override { return true; }
  bool phased() const override { return true; }
  std::unique_ptr<Accumulator> watch(const LinearSite& site) override {
    return makes_scores(site) ? nullptr : std::make_unique<GramAccumulator>(pool_);
  }

  void apply(BlockJob& job) override {
    pool_ = std::make_shared<GramPool>();
    for (const auto& site : job.layers()) {
      if (makes_scores(*site)) continue;
      auto* seen = dynamic_cast<GramAccumulator*>(job.statistics(*site));
      if (!seen || (!seen->gram() && site->role != Role::expert)) job.refuse(*site, "no calibration sample reaches it");
      const AwqClipOptions options;
      if (!seen->gram()) {  // an expert that no token chose keeps its ranges
        clip(job, site, {site->path, at::zeros({site->out, job.spec(*site).groups(site->in)}, at::kByte), options.steps});
        continue;
      }
      const at::Tensor W = site->weight->dense().contiguous();
      clip(job, site, {site->path, awq_shrink(W, seen->gram()->value(), job.spec(*site), options), options.steps});
    }
  }

 private:
  std::shared_ptr<GramPool> pool_ = std::make_shared<GramPool>();
};

class StoredClipStep : public Step {
 public:
  explicit StoredClipStep(const ScaleSet& stored) : stored_(stored) {}

  void apply(BlockJob& job) override {
    std::map<std::string, const ClipRecord*> of_block;
    for (const ScaleSet::Clip& c : stored_.clips) {
      if (c.block == job.name()) of_block[c.record.layer] = &c.record;
    }
    for (const auto& site : job.layers()) {
      if (makes_scores(*site)) continue;
      const auto it = of_block.find(site->path);
      if (it == of_block.end() || it->second->shrink_NG.sizes() != at::IntArrayRef{site->out, job.spec(*site).groups(site->in)})
        throw Error(ErrorKind::mismatch, stored_.path + ": holds no ranges for layer " + site->path + " and its groups");
      clip(job, site, *it->second);
      of_block.erase(it);
    }
    if (!of_block.empty())
      throw Error(ErrorKind::mismatch, stored_.path + ": holds ranges for layer " + of_block.begin()->first + ", which is not quantized in this run");
  }

 private:
  const ScaleSet& stored_;
};

}  // namespace

std::unique_ptr<Step> make_awq_clip(const ScaleSet* stored) {
  if (stored) return std::make_unique<StoredClipStep>(*stored);
  return std::make_unique<AwqClipStep>();
}

}  // namespace statera
