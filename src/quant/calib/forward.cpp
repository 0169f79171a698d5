// Entering, running and storing. File names end in .state until their content is on disk.
#include "quant/calib/forward.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/threads.h"

namespace statera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPrefix = "activations-";

std::string sample_name(size_t i) { return std::to_string(i); }
std::string tap_name(size_t i, size_t tap) { return std::to_string(i) + ".tap" + std::to_string(tap); }

// Written under another name, then renamed: what has its name is complete.
void publish(const std::string& folder, const std::string& name) {
  const std::string from = folder + "/" + name + ".part", to = folder + "/" + name;
  if (std::rename(from.c_str(), to.c_str()) != 0) throw io_error(to, errno);
  sync_directory(folder);
}

class Calibrated : public WeightRep {
 public:
  Calibrated(const at::Tensor& W_NK, std::optional<QTensor> q) : q_(std::move(q)), W_(W_NK.to(at::kFloat).contiguous()) {}
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override {
    constexpr int64_t kRows = 256;
    const at::Tensor x = (act ? fake_quantize(x_TK, *act) : x_TK).to(at::kFloat).contiguous();
    at::Tensor y = at::empty({x.size(0), W_.size(0)}, x.options());
    const int64_t N = W_.size(0), slices = (N + kRows - 1) / kRows;
    parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
      c10::InferenceMode no_gradients;
      for (int64_t s = begin; s < end; ++s) {
        const int64_t from = s * kRows, to = std::min(N, from + kRows);
        y.slice(1, from, to).copy_(at::mm(x, W_.slice(0, from, to).t()));
      }
    });
    return y.to(x_TK.scalar_type());
  }
  at::Tensor dense() const override { return W_; }
  std::optional<QTensor> unpack() const override { return q_; }
  int64_t bytes() const override { return (q_ ? q_->bytes() : 0) + W_.numel() * 4; }

 private:
  std::optional<QTensor> q_;
  at::Tensor W_;
};

}  // namespace

Weight make_calibrated(const QTensor& q) { return std::make_shared<Calibrated>(q.dequantize(), q); }
Weight make_sliced(const at::Tensor& W_NK) { return std::make_shared<Calibrated>(W_NK, std::nullopt); }

Calibrator::Calibrator(const Model& model, const CalibData& data, std::string folder, const std::atomic<bool>* cancel)
    : model_(model), data_(data), folder_(std::move(folder)), cancel_(cancel) {}

uint64_t Calibrator::state_bytes(const Model& model, const CalibData& data) {
  return static_cast<uint64_t>(data.summary.tokens * model.limits().hidden_size) * c10::elementSize(model.dtype);
}

std::string Calibrator::state_path(int64_t block) const { return kPrefix + std::to_string(block) + ".state"; }

ShardPlan::File Calibrator::plan(const std::string& name) const {
  std::vector<TensorPlan> tensors;
  for (size_t i = 0; i < data_.samples.size(); ++i)
    tensors.push_back({sample_name(i), model_.dtype, {data_.samples[i].tokens(), model_.limits().hidden_size}});
  return {name + ".part", plan_file(tensors, {{"data", data_.summary.hash}})};
}

void Calibrator::start(int64_t next, const ProgressSink& sink) {
  const std::string entered = folder_ + "/" + kPrefix + "entered.state", state = folder_ + "/" + state_path(next);
  if (next == 0 && !(is_file(entered) && is_file(state))) enter(sink);
  for (const std::string& path : {entered, state}) {
    if (!is_file(path)) throw Error(ErrorKind::mismatch, path + ": the activations of the unfinished work are gone; --restart begins anew");
  }
  entered_.emplace(entered);
  state_.emplace(state);
  for (const auto& [key, value] : state_->metadata()) {
    if (key == "data" && value != data_.summary.hash) throw Error(ErrorKind::mismatch, state + ": activations of other data; --restart begins anew");
  }
  at_ = next;
}

void Calibrator::enter(const ProgressSink& sink) {
  Progress progress("look at samples", static_cast<double>(data_.samples.size()), "samples", sink);
  const std::string name = state_path(0);
  NamedTensors taps;
  {
    ShardFile file(folder_, plan(name));
    for (size_t i = 0; i < data_.samples.size(); ++i) {
      check_cancelled();
      ModelInputs in = data_.inputs(i);
      Pass pass = make_pass(model_, in);
      const auto seen = model_.see(in);
      file.write(sample_name(i), model_.language().enter(in.input_ids, seen ? &*seen : nullptr, pass));
      for (size_t t = 0; seen && t < seen->deepstack_VH.size(); ++t) taps.emplace_back(tap_name(i, t), seen->deepstack_VH[t].to(model_.dtype));
      progress.advance(1, data_.samples[i].where);
    }
    file.sync();
  }
  write_safetensors(folder_ + "/" + kPrefix + "entered.state", taps, {{"data", data_.summary.hash}});
  publish(folder_, name);
  progress.finish();
}

at::Tensor Calibrator::hidden(size_t i) const {
  const TensorInfo* info = state_->find(sample_name(i));
  check(info != nullptr, "no state of a sample");
  at::Tensor h = state_->tensor(*info).clone();
  state_->release(*info);
  return h;
}

// Positions, kinds (answers marked) and rotary tables of a sample; visual rows come with the taps that were stored, the rows themselves are in h.
Pass Calibrator::pass_of(size_t i) const {
  const CalibSample& s = data_.samples[i];
  ModelInputs in;
  in.input_ids = s.ids_T;
  in.position_ids = s.positions;
  in.bounds = one_sequence(s.tokens());
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

void Calibrator::observe(int64_t block, Tap& tap) const {
  check(block == at_, "blocks run in order");
  for (size_t i = 0; i < data_.samples.size(); ++i) {
    check_cancelled();
    Pass pass = pass_of(i);
    pass.tap = &tap;
    try {
      model_.language().block(block, hidden(i), pass);
    } catch (const Enough&) {
    }
  }
}

void Calibrator::advance(int64_t block) {
  check(block == at_, "blocks run in order");
  const std::string name = state_path(block + 1);
  {
    ShardFile file(folder_, plan(name));
    for (size_t i = 0; i < data_.samples.size(); ++i) {
      check_cancelled();
      Pass pass = pass_of(i);
      file.write(sample_name(i), model_.language().block(block, hidden(i), pass));
    }
    file.sync();
  }
  publish(folder_, name);
  state_.emplace(folder_ + "/" + name);
  at_ = block + 1;
}

void Calibrator::forget_before(int64_t block) const {
  for (int64_t b = block - 1; b >= 0; --b) {
    std::error_code ec;
    if (!fs::remove(folder_ + "/" + state_path(b), ec)) break;
  }
}

void Calibrator::remove_files() const {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() == ".state" || entry.path().filename().string().starts_with(kPrefix)) found.push_back(entry.path());
  }
  for (const fs::path& path : found) fs::remove(path);
}

void Calibrator::check_cancelled() const {
  if (cancel_ && cancel_->load()) throw Error(ErrorKind::interrupted, "stopped while running the samples");
}

}  // namespace statera
