// A job of one layer that keeps the result.
#include "quant/recipes/trial.h"

#include "base/error.h"

namespace statera {
namespace {

class TrialJob : public BlockJob {
 public:
  TrialJob(const std::shared_ptr<LinearSite>& site, const QSpec& spec, const std::string& place) : sites_{site}, spec_(spec), place_(place) {}
  const std::string& name() const override { return place_; }
  const Stack* stack() const override { return nullptr; }
  int64_t index() const override { return -1; }
  Topology topology() const override { return {}; }
  std::span<const std::shared_ptr<LinearSite>> layers() const override { return sites_; }
  const QSpec& spec(const LinearSite&) const override { return spec_; }
  int64_t rows() const override { return 0; }
  Accumulator* statistics(const LinearSite&) override { return nullptr; }
  void observe(Inputs, const std::map<const LinearSite*, Accumulator*>&) override { throw Bug("a layer by itself sees no samples"); }
  void finish(const LinearSite& site, QTensor q, std::optional<RoundingError> error) override {
    result.error = error ? *error : rounding_error(site.weight->dense(), q);
    result.q = std::move(q);
  }
  void measured(const LinearSite&, const OutputLoss&) override {}
  [[noreturn]] void refuse(const LinearSite&, std::string_view reason) const override {
    throw Error(ErrorKind::bad_file, place_ + ": " + std::string(reason));
  }
  void scaled(ScaleRecord) override {}
  void clipped(ClipRecord) override {}
  void rewrite(const std::string&, const at::Tensor&) override {}

  Trial result;

 private:
  std::vector<std::shared_ptr<LinearSite>> sites_;
  QSpec spec_;
  const std::string& place_;
};

}  // namespace

Trial round_to_nearest(const std::shared_ptr<LinearSite>& site, const QSpec& spec, const std::string& place) {
  static const Recipe recipe = make_recipe("rtn", {});
  TrialJob job(site, spec, place);
  for (const auto& step : recipe) step->apply(job);
  check(job.result.q.q.defined(), "round-to-nearest left the layer unfinished");
  return std::move(job.result);
}

}  // namespace statera
