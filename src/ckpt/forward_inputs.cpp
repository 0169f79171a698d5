// See forward_inputs.h.
#include "ckpt/forward_inputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "base/strings.h"
#include "ckpt/safetensors.h"

namespace statera {
namespace {

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path), file_(path) {}
  // A tensor cast to `type`; undefined when absent. integral: only integers are accepted.
  at::Tensor get(const char* name, at::ScalarType type, bool integral) const {
    if (!file_.find(name)) return {};
    at::Tensor t = file_.tensor(name);
    if (integral == t.is_floating_point()) throw fault(name, integral ? "must hold integers" : "must hold floating numbers");
    return t.to(type).contiguous();
  }
  at::Tensor integers(const char* name) const { return get(name, at::kLong, true); }
  at::Tensor floats(const char* name) const { return get(name, at::kFloat, false); }
  std::vector<Grid> grids(const char* name) const {
    at::Tensor t = integers(name);
    if (!t.defined()) return {};
    if (t.dim() != 2 || t.size(1) != 3) throw shape_fault(name, t, "[n, 3]");
    std::vector<Grid> out;
    for (int64_t i = 0; i < t.size(0); ++i) {
      const int64_t* g = t.const_data_ptr<int64_t>() + 3 * i;
      if (g[0] < 1 || g[1] < 1 || g[2] < 1) throw fault(name, "holds a size below 1");
      out.push_back({g[0], g[1], g[2]});
    }
    return out;
  }
  Error fault(const std::string& name, const std::string& what) const {
    return Error(ErrorKind::bad_file, path_ + ": tensor " + name + ": " + what);
  }
  Error shape_fault(const std::string& name, const at::Tensor& t, const std::string& wanted) const {
    return fault(name, "shape " + shape_string(t.sizes()) + ", expected " + wanted);
  }

 private:
  std::string path_;
  SafetensorsFile file_;
};

// [B * L] or [3, B * L]; undefined when absent.
at::Tensor read_positions(const Reader& in, int64_t B, int64_t L) {
  at::Tensor p = in.integers("position_ids");
  if (!p.defined()) return p;
  auto is = [&](std::initializer_list<int64_t> shape) { return p.sizes() == at::IntArrayRef(shape); };
  if (is({4, B, L})) p = p.slice(0, 1, 4);  // the first row counts text
  if (is({3, B, L}) || (B == 1 && is({3, L}))) return p.reshape({3, B * L});
  if (is({B, L}) || is({1, L}) || (B == 1 && is({L}))) return p.expand({B, L}).reshape({B * L});
  throw in.shape_fault("position_ids", p, "[B, L] or [3, B, L] with B " + std::to_string(B) + ", L " + std::to_string(L));
}

// Keeps the rows of attention_mask and sets the bounds.
void apply_mask(const Reader& in, ForwardInputs& out) {
  ModelInputs& m = out.inputs;
  at::Tensor mask = in.integers("attention_mask");
  m.bounds = {0};
  if (!mask.defined()) {
    for (int64_t b = 1; b <= out.batch; ++b) m.bounds.push_back(b * out.length);
    return;
  }
  if (mask.numel() != out.batch * out.length)
    throw in.shape_fault("attention_mask", mask, shape_string(std::vector<int64_t>{out.batch, out.length}));
  mask = mask.reshape({out.batch, out.length}) != 0;
  for (int64_t b = 0; b < out.batch; ++b) {
    int64_t rows = mask.select(0, b).sum().item<int64_t>();
    if (rows == 0) throw in.fault("attention_mask", "sequence " + std::to_string(b) + " is masked whole");
    m.bounds.push_back(m.bounds.back() + rows);
  }
  out.kept = mask.reshape({-1}).nonzero().squeeze(1);
  m.input_ids = at::index_select(m.input_ids, 0, out.kept);
  if (m.position_ids.defined()) m.position_ids = at::index_select(m.position_ids, -1, out.kept);
}

void check_pixels(const Reader& in, const std::string& name, const at::Tensor& pixels, const std::string& grid_name,
                  const std::vector<Grid>& grids) {
  if (!pixels.defined() && grids.empty()) return;
  if (!pixels.defined() || grids.empty()) throw in.fault(pixels.defined() ? grid_name : name, "missing");
  int64_t rows = 0;
  for (const auto& [t, h, w] : grids) rows += t * h * w;
  if (pixels.dim() != 2 || pixels.size(0) != rows)
    throw in.shape_fault(name, pixels, "[" + std::to_string(rows) + ", patch] by " + grid_name);
}

}  // namespace

at::Tensor ForwardInputs::unflatten(const at::Tensor& rows) const {
  at::Tensor all = rows;
  if (kept.defined()) {
    auto shape = rows.sizes().vec();
    shape[0] = batch * length;
    all = at::zeros(shape, rows.options());
    all.index_copy_(0, kept, rows);
  }
  auto shape = all.sizes().vec();
  shape[0] = length;
  shape.insert(shape.begin(), batch);
  return all.reshape(shape);
}

ForwardInputs read_forward_inputs(const std::string& path) {
  Reader in(path);
  ForwardInputs out;
  ModelInputs& m = out.inputs;
  m.input_ids = in.integers("input_ids");
  if (!m.input_ids.defined()) throw in.fault("input_ids", "missing");
  if (m.input_ids.dim() < 1 || m.input_ids.dim() > 2 || m.input_ids.numel() == 0)
    throw in.shape_fault("input_ids", m.input_ids, "[L] or [B, L]");
  out.batch = m.input_ids.dim() == 2 ? m.input_ids.size(0) : 1;
  out.length = m.input_ids.size(-1);
  m.input_ids = m.input_ids.reshape({-1});
  m.position_ids = read_positions(in, out.batch, out.length);
  apply_mask(in, out);
  m.pixel_values = in.floats("pixel_values");
  m.image_grid_thw = in.grids("image_grid_thw");
  m.pixel_values_videos = in.floats("pixel_values_videos");
  m.video_grid_thw = in.grids("video_grid_thw");
  check_pixels(in, "pixel_values", m.pixel_values, "image_grid_thw", m.image_grid_thw);
  check_pixels(in, "pixel_values_videos", m.pixel_values_videos, "video_grid_thw", m.video_grid_thw);
  if (at::Tensor s = in.get("second_per_grid_ts", at::kDouble, false); s.defined()) {
    m.second_per_grid_ts.assign(s.const_data_ptr<double>(), s.const_data_ptr<double>() + s.numel());
  }
  return out;
}

}  // namespace statera
