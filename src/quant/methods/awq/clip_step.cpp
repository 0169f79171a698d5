// Phase by phase, each layer on the gram of all its input rows. Queries and keys keep their range, as AWQ's authors leave them: their
// outputs meet in a product, which an error of each alone says little about.
// differs: the gram of all rows in place of 512 sampled ones.
#include "quant/methods/awq/clip_step.h"

#include <map>

#include "base/error.h"
#include "base/strings.h"
#include "quant/calib/accumulators.h"
#include "quant/methods/awq/algo.h"

namespace statera {
namespace {

bool makes_scores(const LinearSite& site) {
  const std::string name = site.path.substr(site.path.rfind('.') + 1);
  return (site.role == Role::attention || site.role == Role::vision) && (name == "q_proj" || name == "k_proj" || name == "qkv_proj" || name == "qkv");
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
      if (!seen->gram()) continue;  // an expert that no token chose keeps its ranges
      const at::Tensor W = site->weight->dense().contiguous();
      const QSpec& spec = job.spec(*site);
      site->weight = make_dense(clamp_groups(W, awq_clip(W, seen->gram()->value(), spec), spec));
    }
  }

 private:
  std::shared_ptr<GramPool> pool_ = std::make_shared<GramPool>();
};

}  // namespace

std::unique_ptr<Step> make_awq_clip() { return std::make_unique<AwqClipStep>(); }

}  // namespace statera
