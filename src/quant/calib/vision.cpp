// Grids are kept beside the states, so that pictures are decoded once. Images come before videos.
#include "quant/calib/vision.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "ckpt/safetensors_write.h"

namespace statera {
namespace {

const VisionStack& tower_of(const Model& model) {
  check(model.vision() != nullptr, "a model without vision tower");
  return *model.vision();
}

int64_t width_of(const VisionStack& tower) { return tower.topology(0).residual_readers.at(0).site().in; }

at::Tensor grid_rows(const std::vector<Grid>& grids) {
  std::vector<int64_t> flat;
  for (const Grid& g : grids) flat.insert(flat.end(), g.begin(), g.end());
  return at::tensor(flat, at::kLong).reshape({-1, 3});
}

// Layers see rows of patches, projectors fewer: all of them vision.
struct VisionTap : Tap {
  Tap& to;
  explicit VisionTap(Tap& tap) : to(tap) {}
  void input(const LinearSite& site, const at::Tensor& x, const Pass& pass) override { to.input(site, x, all_vision(x, pass)); }
  void linear(const LinearSite& site, const at::Tensor& x, const at::Tensor& y, const Pass& pass) override {
    to.linear(site, x, y, all_vision(x, pass));
  }
  static Pass all_vision(const at::Tensor& x, const Pass& pass) {
    Pass seen = pass;
    seen.kinds = at::full({x.size(0)}, static_cast<int64_t>(kVision), at::kChar);
    return seen;
  }
};

}  // namespace

VisionCalibrator::VisionCalibrator(const Model& model, const CalibData& data, std::string folder, const std::atomic<bool>* cancel, std::string prefix)
    : StackWalk(model, tower_of(model), width_of(tower_of(model)), data, std::move(folder), std::move(prefix), cancel), tower_(tower_of(model)) {}

uint64_t VisionCalibrator::disk_bytes(const Model& model, const CalibData& data) {
  const VisionStack& tower = tower_of(model);
  uint64_t patches = 0;
  for (const CalibSample& s : data.samples) patches += static_cast<uint64_t>(s.patches);
  return (3 + tower.taps().size()) * patches * static_cast<uint64_t>(width_of(tower)) * c10::elementSize(model.dtype);
}

void VisionCalibrator::start(int64_t next, const ProgressSink& sink) {
  if (next == 0 && !(is_file(entered_path()) && is_file(state_path(0)))) enter(sink);
  open_state(next);
}

void VisionCalibrator::enter(const ProgressSink& sink) {
  const auto pictures = std::count_if(data_.samples.begin(), data_.samples.end(), [](const CalibSample& s) { return s.patches > 0; });
  Progress progress("look at pictures", static_cast<double>(pictures), "samples", sink);
  NamedTensors grids;
  write_state(0, [&](size_t i) {
    const ModelInputs in = data_.inputs(i);
    std::vector<at::Tensor> pixels;
    for (const at::Tensor& t : {in.pixel_values, in.pixel_values_videos}) {
      if (t.defined()) pixels.push_back(t);
    }
    std::vector<Grid> all = in.image_grid_thw;
    all.insert(all.end(), in.video_grid_thw.begin(), in.video_grid_thw.end());
    grids.emplace_back(std::to_string(i), grid_rows(all));
    progress.advance(1, data_.samples[i].where);
    Pass pass;
    return tower_.enter(at::cat(pixels, 0), all, pass);
  });
  write_safetensors(entered_path(), grids, {{"data", data_.summary.hash}});
  progress.finish();
}

Pass VisionCalibrator::pass_of(size_t i) const {
  const TensorInfo* info = entered_->find(std::to_string(i));
  check(info != nullptr, "no grids of a sample");
  const at::Tensor rows = entered_->tensor(*info).contiguous();
  std::vector<Grid> grids(static_cast<size_t>(rows.size(0)));
  for (size_t g = 0; g < grids.size(); ++g) std::copy_n(rows.const_data_ptr<int64_t>() + 3 * g, 3, grids[g].begin());
  Pass pass;
  tower_.prepare(grids, pass);
  pass.kinds = at::full({rows_of(i)}, static_cast<int64_t>(kVision), at::kChar);
  return pass;
}

VisualFeatures VisionCalibrator::leave(size_t i, Pass& pass) const {
  check(at_ == blocks(), "features lie behind the last block");
  const std::vector<int64_t> taps = tower_.taps();
  for (size_t t = 0; t < taps.size(); ++t) {
    const SafetensorsFile end(state_path(taps[t] + 1));
    pass.side->deepstack_VH.push_back(tower_.tapped(t, end.tensor(std::to_string(i)).clone(), pass));
  }
  return tower_.leave(hidden(i), pass);
}

void VisionCalibrator::behind(size_t i, Pass& pass) const {
  VisionTap tap(*pass.tap);
  pass.tap = &tap;
  leave(i, pass);
}

bool VisionCalibrator::needed_behind(int64_t block) const {
  const std::vector<int64_t> taps = tower_.taps();
  return std::find(taps.begin(), taps.end(), block - 1) != taps.end();
}

std::optional<VisualFeatures> VisionCalibrator::features(size_t i) const {
  if (rows_of(i) == 0) return std::nullopt;
  Pass pass = pass_of(i);
  return model_.arrange(data_.samples[i].ids_T, leave(i, pass));
}

}  // namespace statera
