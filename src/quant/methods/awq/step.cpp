// AWQ as a step: scales searched and folded group by group; round-to-nearest follows where no other method rounds. Each group is judged by the squared
// error of its readers' own outputs. Clipping, on request, is clip_step.h. The arithmetic is in algo.h; here inputs are gathered and scales folded.
#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/sum.h>

#include "base/error.h"
#include "quant/calib/accumulators.h"
#include "quant/calib/fold.h"
#include "quant/methods/awq/algo.h"
#include "quant/methods/awq/clip_step.h"
#include "quant/recipe.h"

namespace statera {
namespace {

// What a group's search needs of its input: the gram where the input is narrower than the rows kept would be many, else rows.
struct Seen {
  std::unique_ptr<Gram> gram;
  std::unique_ptr<InputKeeper> keeper;
  at::Tensor sum_K;  // of |x|, f64
  int64_t rows = 0;
};

// Layers that read one tensor share what was seen of it.
struct SeenPool {
  at::Tensor x;
  std::shared_ptr<Seen> seen;
};

class SeenAccumulator : public Accumulator {
 public:
  SeenAccumulator(std::shared_ptr<SeenPool> pool, const RecipeOptions& options) : pool_(std::move(pool)), options_(options) {}

  void add(const at::Tensor& x, const at::Tensor& y, const Pass& pass) override {
    const bool same = pool_->x.defined() && pool_->x.const_data_ptr() == x.const_data_ptr() && pool_->x.sizes() == x.sizes();
    if (!seen) {
      owner_ = !same;
      seen = same ? pool_->seen : begin(x.size(1));
    }
    if (!owner_) {
      check(same && pool_->seen == seen, "layers that shared an input read different ones now");
      return;
    }
    if (seen->gram) seen->gram->add(x, {});
    if (seen->keeper) seen->keeper->add(x, y, pass);
    const at::Tensor sum = at::sum(at::abs(x.to(at::kDouble)), {0});
    seen->sum_K = seen->sum_K.defined() ? seen->sum_K + sum : sum;
    seen->rows += x.size(0);
    *pool_ = {x, seen};
  }

  std::shared_ptr<Seen> seen;

 private:
  std::shared_ptr<Seen> begin(int64_t width) const {
    auto out = std::make_shared<Seen>();
    const int64_t kept = options_.search_tokens > 0 ? std::min(options_.search_tokens, options_.data_tokens) : options_.data_tokens;
    if (options_.search_tokens == 0 || width <= kept) {
      out->gram = std::make_unique<Gram>(width);
    } else {
      out->keeper = std::make_unique<InputKeeper>(options_.search_tokens, options_.data_tokens, options_.seed);
    }
    return out;
  }
  std::shared_ptr<SeenPool> pool_;
  const RecipeOptions& options_;
  bool owner_ = false;
};

class AwqStep : public Step {
 public:
  explicit AwqStep(const RecipeOptions& options) : options_(options) {}
  bool needs_data() const override { return true; }
  std::unique_ptr<Accumulator> watch(const LinearSite&) override { return std::make_unique<SeenAccumulator>(pool_, options_); }

  void apply(BlockJob& job) override {
    pool_ = std::make_shared<SeenPool>();
    for (const ScaleGroup& group : job.topology().groups) {
      std::shared_ptr<Seen> input;
      std::vector<at::Tensor> weights;
      std::vector<QSpec> specs;
      for (const Linear& reader : group.readers) {
        auto* seen = dynamic_cast<SeenAccumulator*>(job.statistics(reader.site()));
        if (!seen) continue;
        if (!seen->seen) job.refuse(reader.site(), "no calibration sample reaches it");
        input = seen->seen;
        weights.push_back(reader.site().weight->dense());  // only what will be rounded counts
        specs.push_back(job.spec(reader.site()));
      }
      if (weights.empty()) continue;
      ScaleGridOptions grid;
      grid.reader_of = group.reader_of;
      grid.channels = group.reader_of.empty() ? 0 : group.channels;
      AwqInput in;
      if (input->gram) in.gram_KK = input->gram->value();
      if (input->keeper) in.rows_TK = input->keeper->rows();
      const at::Tensor mean = (input->sum_K / static_cast<double>(input->rows)).to(at::kFloat);
      ScaleChoice choice = awq_search(weights, in, mean, specs, grid);
      fold_group(job, group, {.group = {}, .readers = {}, .scale_C = choice.scale, .ratio = choice.ratio, .losses = std::move(choice.losses)});
    }
  }

 private:
  RecipeOptions options_;
  std::shared_ptr<SeenPool> pool_ = std::make_shared<SeenPool>();
};

Recipe make_steps(const RecipeOptions& options) {
  Recipe recipe;
  recipe.push_back(std::make_unique<AwqStep>(options));
  if (options.awq_clip) recipe.push_back(make_awq_clip());
  return recipe;
}

}  // namespace

extern const Method kMethod_awq{"awq", "channels that matter scaled up before rounding; looks at calibration data", make_steps};

}  // namespace statera
