// Entering and leaving the language stack; weights that stand in for rounded ones.
#include "quant/calib/forward.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

std::string tap_name(size_t i, size_t tap) { return std::to_string(i) + ".tap" + std::to_string(tap); }

// A dense matrix in fp32 that knows the integers it came from.
class Calibrated : public WeightRep {
 public:
  explicit Calibrated(QTensor q) : q_(std::move(q)), dense_(make_dense(q_.dequantize().to(at::kFloat).contiguous())) {}
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override { return dense_->apply(x_TK, act); }
  at::Tensor dense() const override { return dense_->dense(); }
  std::optional<QTensor> unpack() const override { return q_; }
  int64_t bytes() const override { return q_.bytes() + dense_->bytes(); }

 private:
  QTensor q_;
  Weight dense_;
};

}  // namespace

Weight make_calibrated(const QTensor& q) { return std::make_shared<Calibrated>(q); }

Calibrator::Calibrator(const Model& model, const CalibData& data, std::string folder, const std::atomic<bool>* cancel, std::string prefix)
    : StackWalk(model, model.language(), model.limits().hidden_size, data, std::move(folder), std::move(prefix), cancel) {}

void Calibrator::when_through(Through through) {
  through_ = std::move(through);
  of_block_.resize(static_cast<size_t>(blocks()));
  for (const auto& [path, site] : model_.params.linears) {
    const bool tower = site->role == Role::vision || site->role == Role::projector;
    if (tower) tower_.push_back(site.get());
    if (!tower && site->block >= 0) of_block_.at(static_cast<size_t>(site->block)).push_back(site.get());
  }
}

void Calibrator::through(const std::vector<const LinearSite*>& sites) const {
  for (const LinearSite* site : sites) through_(*site);
}

uint64_t Calibrator::state_bytes(const Model& model, const CalibData& data) {
  return static_cast<uint64_t>(data.summary.tokens * model.limits().hidden_size) * c10::elementSize(model.dtype);
}

void Calibrator::start(int64_t next, const ProgressSink& sink) {
  if (next == 0 && !(is_file(entered_path()) && is_file(state_path(0)))) {
    enter([&](size_t i) { return model_.see(data_.inputs(i)); }, sink);
  }
  open_state(next);
}

void Calibrator::enter(const Features& features, const ProgressSink& sink) {
  Progress progress("look at samples", static_cast<double>(data_.samples.size()), "samples", sink);
  std::vector<std::vector<at::Tensor>> seen_by(data_.samples.size());
  std::mutex lock;
  write_state(0, [&](size_t i) {
    const auto seen = features(i);
    if (seen) through(tower_);
    ModelInputs in = inputs_of(i);
    Pass pass = make_pass(model_, in);
    if (seen) {
      for (const at::Tensor& tap : seen->deepstack_VH) seen_by[i].push_back(tap.to(model_.dtype));
    }
    at::Tensor h = model_.language().enter(in.input_ids, seen ? &*seen : nullptr, pass);
    const std::lock_guard hold(lock);
    progress.advance(1, data_.samples[i].where);
    return h;
  }, side_by_side_);
  NamedTensors taps;
  for (size_t i = 0; i < seen_by.size(); ++i)
    for (size_t t = 0; t < seen_by[i].size(); ++t) taps.emplace_back(tap_name(i, t), seen_by[i][t]);
  write_safetensors(entered_path(), taps, {{"data", data_.summary.hash}});
  open_state(0);
  progress.finish();
}

// Without pixels.
ModelInputs Calibrator::inputs_of(size_t i) const {
  const CalibSample& s = data_.samples[i];
  ModelInputs in;
  in.input_ids = s.ids_T;
  in.position_ids = s.positions;
  in.bounds = one_sequence(s.tokens());
  return in;
}

// Positions, kinds (answers marked) and rotary tables of a sample; visual rows come with the taps that were stored, the rows themselves are in h.
Pass Calibrator::pass_of(size_t i) const {
  const CalibSample& s = data_.samples[i];
  ModelInputs in = inputs_of(i);
  Pass pass = make_pass(model_, in);
  pass.kinds = at::where(s.answers_T == 1, at::full_like(pass.kinds, static_cast<int64_t>(kAnswer)), pass.kinds);
  const int64_t visual = s.kinds_T.sum().item<int64_t>();
  if (visual == 0) {
    model_.language().enter(in.input_ids, nullptr, pass);
    return pass;
  }
  VisualFeatures features{at::zeros({visual, model_.limits().hidden_size}), {}};
  for (size_t t = 0; const TensorInfo* info = entered_->find(tap_name(i, t)); ++t) features.deepstack_VH.push_back(entered_->tensor(*info));
  model_.language().enter(in.input_ids, &features, pass);
  return pass;
}

// A few rows at a time: logits are wide.
void Calibrator::behind(size_t i, Pass& pass) const {
  constexpr int64_t kRows = 128;
  const at::Tensor x = model_.language().leave(hidden(i), pass);
  for (int64_t from = 0; from < x.size(0); from += kRows) {
    const int64_t to = std::min(x.size(0), from + kRows);
    Pass part = pass;
    part.kinds = pass.kinds.slice(0, from, to);
    try {
      model_.language().head(x.slice(0, from, to), part);
    } catch (const Enough&) {
    }
  }
}

}  // namespace statera
