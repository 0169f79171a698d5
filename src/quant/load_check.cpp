// A source whose quantized layers decode when they are used, and the forward pass over it.
#include "quant/load_check.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "base/error.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/format.h"

namespace statera {
namespace {

constexpr int64_t kRows = 4;  // last tokens whose logits are compared

// One layer of the files, decoded for each use.
class Decoded : public WeightRep {
 public:
  Decoded(const Checkpoint& checkpoint, std::string disk, int64_t out, int64_t in)
      : checkpoint_(checkpoint), disk_(std::move(disk)), out_(out), in_(in) {}
  at::Tensor apply(const at::Tensor& x, const ActQuant* act) const override { return make_calibrated(*unpack())->apply(x, act); }
  at::Tensor dense() const override { return unpack()->dequantize(); }
  std::optional<QTensor> unpack() const override {
    const Json& config = *checkpoint_.quantization_config();
    std::optional<ActQuant> act;
    return format_of(config, checkpoint_.directory()).read(checkpoint_, config, disk_, out_, in_, act)->unpack();
  }
  int64_t bytes() const override { return 0; }

 private:
  Checkpoint checkpoint_;
  std::string disk_;
  int64_t out_, in_;
};

class DecodingSource : public CheckpointSource {
 public:
  using CheckpointSource::CheckpointSource;
  Weight linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) override {
    if (format()) {
      const std::string disk = disk_name(path);
      if (auto stored = format()->describe(checkpoint(), *checkpoint().quantization_config(), disk, out, in)) {
        act = stored->act;
        return std::make_shared<Decoded>(checkpoint(), disk, out, in);
      }
    }
    return CheckpointSource::linear(path, out, in, act);
  }
};

// Pages that were read, so that a model larger than memory can be checked.
void let_go(const Checkpoint& checkpoint) {
  for (const SafetensorsFile& f : checkpoint.files()) f.mapping().release(0, f.mapping().size());
}

at::Tensor last_logits(const Model& model, const at::Tensor& h_TH, const Pass& pass) {
  const at::Tensor rows = model.language().leave(h_TH, pass);
  return model.language().head(rows.slice(0, std::max<int64_t>(0, rows.size(0) - kRows)).contiguous(), pass).to(at::kDouble);
}

double largest(const at::Tensor& t) { return at::abs(t).max().item<double>(); }

// Of fp32 sums taken in another order, relative, over all layers one after another.
double accumulation(const Model& model) {
  double variance = 0;
  for (const auto& [path, site] : model.params.linears) variance += static_cast<double>(site->in);
  return 0x1p-23 * std::sqrt(variance);
}

}  // namespace

LogitCheck check_logits(const Model& model, const ModelType& type, const Calibrator& calibrator, const std::string& folder, bool rounded_activations) {
  c10::InferenceMode no_gradients;
  Pass pass;  // made by the loaded model's enter(), and good for both: what leave() adds comes from the vision tower
  const Checkpoint checkpoint = Checkpoint::open(folder);
  DecodingSource source(checkpoint, type);
  std::unique_ptr<Model> again;
  const at::Tensor loaded = with_context("checking what was written", [&] {
    again = type.make(checkpoint.config(), source);
    ModelInputs inputs = calibrator.data().inputs(0);
    pass = make_pass(*again, inputs);
    const auto seen = again->see(inputs);
    let_go(checkpoint);
    at::Tensor h = again->language().enter(inputs.input_ids, seen ? &*seen : nullptr, pass);
    for (int64_t i = 0; i < again->language().blocks(); ++i) {
      h = again->language().block(i, h, pass);
      let_go(checkpoint);
    }
    const at::Tensor logits = last_logits(*again, h, pass);
    let_go(checkpoint);
    return logits;
  });
  // The run holds a rounded head no longer.
  const bool head = again->residual_ends().head.site().weight->unpack().has_value();
  const at::Tensor held = last_logits(head ? *again : model, calibrator.state(0), pass);
  LogitCheck out{held.numel(), largest(held), largest(held - loaded), 0};
  out.allowed = out.largest * (rounded_activations ? 0.01 : accumulation(model));
  if (!(out.worst <= out.allowed)) {
    throw Error(ErrorKind::bad_file, "checking what was written: " + folder + ": its logits differ by " + std::to_string(out.worst) +
                                         " from those of the run, of at most " + std::to_string(out.largest) + "; allowed are " + std::to_string(out.allowed));
  }
  return out;
}

}  // namespace statera
