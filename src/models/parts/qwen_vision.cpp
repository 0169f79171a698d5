// Shapes: P patch rows, C tower width, d head width, U merged units (P/4).
#include "models/parts/qwen_vision.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "nn/elementwise.h"
#include "nn/rope.h"

namespace statera {
namespace {

template <class Norms>
at::Tensor normed(const Norms& norm, const at::Tensor& x) {
  if (const auto* rms = std::get_if<RmsNorm>(&norm)) return (*rms)(x);
  return std::get<LayerNorm>(norm)(x);
}

// Whole merged units of `unit` rows in another order. x [P, C], index [P / unit]
at::Tensor by_units(const at::Tensor& x, int64_t unit, const at::Tensor& index) {
  return at::index_select(x.reshape({-1, unit * x.size(1)}), 0, index).reshape({-1, x.size(1)});
}

// Calls f(y, x) for every patch of one h x w frame in merged-block order.
template <class F>
void for_each_patch(int64_t h, int64_t w, int64_t merge, F&& f) {
  for (int64_t by = 0; by < h; by += merge) {
    for (int64_t bx = 0; bx < w; bx += merge) {
      for (int64_t y = by; y < by + merge; ++y) {
        for (int64_t x = bx; x < bx + merge; ++x) f(y, x);
      }
    }
  }
}

}  // namespace

at::Tensor patch_coordinates(const std::vector<Grid>& grids, int64_t merge) {
  std::vector<int64_t> out;
  for (const auto& [t, h, w] : grids) {
    for (int64_t frame = 0; frame < t; ++frame) {
      for_each_patch(h, w, merge, [&](int64_t y, int64_t x) {
        out.push_back(y);
        out.push_back(x);
      });
    }
  }
  return at::tensor(out, at::kLong).reshape({-1, 2});
}

SequenceBounds frame_bounds(const std::vector<Grid>& grids) {
  SequenceBounds b{0};
  for (const auto& [t, h, w] : grids) {
    for (int64_t frame = 0; frame < t; ++frame) b.push_back(b.back() + h * w);
  }
  return b;
}

WindowPlan plan_windows(const std::vector<Grid>& grids, int64_t merge, int64_t window_units) {
  WindowPlan plan;
  plan.bounds.push_back(0);
  int64_t first = 0;
  for (const auto& [t, h, w] : grids) {
    const int64_t H = h / merge, W = w / merge;
    for (int64_t frame = 0; frame < t; ++frame, first += H * W) {
      for (int64_t wy = 0; wy < H; wy += window_units) {
        for (int64_t wx = 0; wx < W; wx += window_units) {
          for (int64_t y = wy; y < std::min(wy + window_units, H); ++y) {
            for (int64_t x = wx; x < std::min(wx + window_units, W); ++x) plan.index.push_back(first + y * W + x);
          }
          plan.bounds.push_back(static_cast<int64_t>(plan.index.size()) * merge * merge);
        }
      }
    }
  }
  return plan;
}

std::pair<at::Tensor, at::Tensor> interpolation_taps(const std::vector<Grid>& grids, int64_t side, int64_t merge) {
  std::vector<int64_t> rows[4];
  std::vector<float> weights[4];
  auto axis = [side](int64_t i, int64_t n) {
    // linspace(0, side-1, n) in fp32, symmetric around its middle as ATen computes it
    float step = n > 1 ? static_cast<float>(side - 1) / static_cast<float>(n - 1) : 0.0f;
    float at = i < n / 2 ? step * static_cast<float>(i) : static_cast<float>(side - 1) - step * static_cast<float>(n - 1 - i);
    if (n == 1) at = 0;
    auto low = static_cast<int64_t>(at);
    return std::tuple{low, std::min(low + 1, side - 1), at - static_cast<float>(low)};
  };
  for (const auto& [t, h, w] : grids) {
    for (int64_t frame = 0; frame < t; ++frame) {
      for_each_patch(h, w, merge, [&, h = h, w = w](int64_t y, int64_t x) {
        auto [y0, y1, dy] = axis(y, h);
        auto [x0, x1, dx] = axis(x, w);
        const int64_t r[4] = {y0 * side + x0, y0 * side + x1, y1 * side + x0, y1 * side + x1};
        const float k[4] = {(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx};
        for (int j = 0; j < 4; ++j) {
          rows[j].push_back(r[j]);
          weights[j].push_back(k[j]);
        }
      });
    }
  }
  std::vector<at::Tensor> row_parts, weight_parts;
  for (int j = 0; j < 4; ++j) {
    row_parts.push_back(at::tensor(rows[j], at::kLong).unsqueeze(0));
    weight_parts.push_back(at::tensor(weights[j], at::kFloat).unsqueeze(0));
  }
  return {at::cat(row_parts, 0), at::cat(weight_parts, 0)};
}

QwenVision::QwenVision(QwenVisionConfig config, const Scope& scope_in, const at::ScalarType* dtype) : c_(std::move(config)), dtype_(dtype) {
  const int64_t C = c_.width, F = c_.intermediate_size;
  if (C % c_.num_heads || C / c_.num_heads % 4) {
    throw Error(ErrorKind::bad_file, "config.json: vision_config: width " + std::to_string(C) + " does not split into " + std::to_string(c_.num_heads) + " heads of a multiple of 4");
  }
  Scope scope = scope_in.as(Role::vision);
  patch_embed_ = (scope / "patch_embed").patch_linear("proj", C, {c_.in_channels, c_.temporal_patch_size, c_.patch_size, c_.patch_size},
                                                      c_.patch_bias ? Bias::yes : Bias::none);
  if (c_.num_position_embeddings) pos_embed_ = (scope / "pos_embed").tensor("weight", {c_.num_position_embeddings, C}, Role::embedding);
  for (int64_t i = 0; i < c_.depth; ++i) {
    Scope s = (scope / "blocks" / i).at_block(i);
    Layer l;
    l.norm1 = make_norm(s / "norm1", C);
    l.norm2 = make_norm(s / "norm2", C);
    l.qkv = (s / "attn").linear("qkv", 3 * C, C, Bias::yes);
    l.proj = (s / "attn").linear("proj", C, C, Bias::yes);
    l.attention = std::make_shared<AttendSite>(AttendSite{.layer = i, .causal = false, .window = 0, .scale = 0, .qk_rotation = {}});
    s.params().picture_attentions.push_back(l.attention);
    if (c_.rms) {
      l.mlp = GatedMlp(s / "mlp", C, F, c_.act, Bias::yes, false);
    } else {
      l.fc1 = (s / "mlp").linear(c_.qwen3_names ? "linear_fc1" : "fc1", F, C, Bias::yes);
      l.fc2 = (s / "mlp").linear(c_.qwen3_names ? "linear_fc2" : "fc2", C, F, Bias::yes);
    }
    layers_.push_back(std::move(l));
  }
  Scope projector = scope_in.as(Role::projector);
  merger_ = make_merger(projector / "merger", false);
  for (size_t j = 0; j < c_.deepstack_visual_indexes.size(); ++j) {
    deepstack_mergers_.push_back(make_merger(projector / "deepstack_merger_list" / static_cast<int64_t>(j), true));
  }
}

QwenVision::Norm QwenVision::make_norm(const Scope& scope, int64_t size) const {
  if (c_.rms) return RmsNorm(scope, size, 1e-6);
  return LayerNorm(scope, size, 1e-6);
}

QwenVision::Merger QwenVision::make_merger(const Scope& scope, bool after_shuffle) const {
  const int64_t C = c_.width, M = C * c_.spatial_merge_size * c_.spatial_merge_size;
  Merger m;
  m.norm_after_shuffle = after_shuffle;
  m.norm = make_norm(scope / (c_.qwen3_names ? "norm" : "ln_q"), after_shuffle ? M : C);
  Scope mlp = c_.qwen3_names ? scope : scope / "mlp";
  m.fc1 = mlp.linear(c_.qwen3_names ? "linear_fc1" : "0", M, M, Bias::yes);
  m.fc2 = mlp.linear(c_.qwen3_names ? "linear_fc2" : "2", c_.out_hidden_size, M, Bias::yes);
  return m;
}

at::Tensor QwenVision::position_rows(const std::vector<Grid>& grids) const {
  auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(c_.num_position_embeddings))));
  auto [rows, weights] = interpolation_taps(grids, side, c_.spatial_merge_size);
  at::Tensor table = pos_embed_->value.to(*dtype_);
  at::Tensor out;
  for (int64_t j = 0; j < 4; ++j) {
    at::Tensor part = at::embedding(table, rows[j]) * weights[j].to(*dtype_).unsqueeze(1);
    out = out.defined() ? out + part : part;
  }
  return out;
}

at::Tensor QwenVision::enter(const at::Tensor& pixel_values, const std::vector<Grid>& grids, Pass& pass) const {
  const int64_t merge = c_.spatial_merge_size, unit = merge * merge;
  int64_t rows = 0;
  for (const auto& [t, h, w] : grids) {
    if (t < 1 || h < 1 || w < 1 || h % merge || w % merge) {
      throw Error(ErrorKind::mismatch, "grid (" + std::to_string(t) + ", " + std::to_string(h) + ", " + std::to_string(w) + ") is not made of " + std::to_string(merge) + "x" +
                                           std::to_string(merge) + " blocks of patches");
    }
    rows += t * h * w;
  }
  if (pixel_values.dim() != 2 || pixel_values.size(0) != rows || pixel_values.size(1) != patch_embed_.site().in) {
    throw Error(ErrorKind::mismatch, "pixel values of shape [" + std::to_string(pixel_values.size(0)) + ", " + std::to_string(pixel_values.numel() / std::max<int64_t>(1, pixel_values.size(0))) +
                                         "] do not fit grids of " + std::to_string(rows) + " patches of " + std::to_string(patch_embed_.site().in) + " values");
  }
  at::Tensor x = patch_embed_(pixel_values.to(*dtype_), pass);
  if (pos_embed_) x = x + position_rows(grids);
  prepare(grids, pass);
  if (!pass.side->order.defined()) return x;
  return by_units(x, unit, at::argsort(pass.side->order));
}

void QwenVision::prepare(const std::vector<Grid>& grids, Pass& pass) const {
  const int64_t merge = c_.spatial_merge_size;
  const int64_t d = c_.width / c_.num_heads;
  at::Tensor freq = 1.0 / at::pow(10000.0, at::arange(0, d / 2, 2, at::kFloat) / static_cast<double>(d / 2));  // [d/4]
  at::Tensor yx = patch_coordinates(grids, merge).to(at::kFloat);
  at::Tensor angles = at::cat({yx.select(1, 0).unsqueeze(1) * freq, yx.select(1, 1).unsqueeze(1) * freq}, 1);  // [P, d/2]
  at::Tensor both = at::cat({angles, angles}, 1);

  auto side = std::make_shared<Side>();
  side->full_bounds = frame_bounds(grids);
  pass.bounds = side->full_bounds;
  if (c_.window_size > 0) {
    WindowPlan plan = plan_windows(grids, merge, c_.window_size / merge / c_.patch_size);
    at::Tensor index = at::tensor(plan.index, at::kLong);
    both = by_units(both, merge * merge, index);
    side->order = at::argsort(index);
    pass.bounds = plan.bounds;
  }
  side->cos_TR = at::cos(both);
  side->sin_TR = at::sin(both);
  pass.side = std::move(side);
}

at::Tensor QwenVision::mix(int64_t i, const at::Tensor& x, const Pass& pass) const {
  const Layer& l = layers_[static_cast<size_t>(i)];
  const int64_t P = x.size(0), N = c_.num_heads, d = c_.width / N;
  at::Tensor qkv = l.qkv(x, pass).reshape({P, 3, N, d});
  at::Tensor q = apply_rope_fp32(qkv.select(1, 0), pass.side->cos_TR, pass.side->sin_TR);
  at::Tensor k = apply_rope_fp32(qkv.select(1, 1), pass.side->cos_TR, pass.side->sin_TR);
  const auto& full = c_.fullatt_block_indexes;
  bool windowed = c_.window_size > 0 && std::find(full.begin(), full.end(), i) == full.end();
  return attend(q, k, qkv.select(1, 2), *l.attention, pass, windowed ? &pass.bounds : &pass.side->full_bounds);
}

at::Tensor QwenVision::feed(const Layer& l, const at::Tensor& x, const Pass& pass) const {
  if (c_.rms) return l.mlp(x, pass);
  return feed_forward(c_.act, l.fc1, l.fc2, x, pass);
}

at::Tensor QwenVision::block(int64_t i, const at::Tensor& h_in, Pass& pass) const {
  const Layer& l = layers_[static_cast<size_t>(i)];
  at::Tensor h = sum(h_in, l.proj(mix(i, normed(l.norm1, h_in), pass), pass));
  h = sum(h, feed(l, normed(l.norm2, h), pass));
  const auto& taps = c_.deepstack_visual_indexes;
  if (auto it = std::find(taps.begin(), taps.end(), i); it != taps.end()) {
    pass.side->deepstack_VH.push_back(tapped(static_cast<size_t>(it - taps.begin()), h, pass));
  }
  return h;
}

at::Tensor QwenVision::merge(const Merger& m, const at::Tensor& h, const Pass& pass) const {
  const int64_t M = m.fc1.site().in;
  at::Tensor x = m.norm_after_shuffle ? normed(m.norm, h.reshape({-1, M})) : normed(m.norm, h).reshape({-1, M});
  x = feed_forward(Activation::gelu, m.fc1, m.fc2, x, pass);
  if (pass.side->order.defined()) x = at::index_select(x, 0, pass.side->order);
  return x;
}

VisualFeatures QwenVision::leave(const at::Tensor& h, const Pass& pass) const { return {merge(merger_, h, pass), pass.side->deepstack_VH}; }

std::vector<Linear> QwenVision::output_layers() const {
  std::vector<Linear> out{merger_.fc2};
  for (const Merger& m : deepstack_mergers_) out.push_back(m.fc2);
  return out;
}

Topology QwenVision::topology(int64_t i) const {
  const Layer& l = layers_.at(static_cast<size_t>(i));
  const int64_t C = c_.width, F = c_.intermediate_size;
  auto norm_params = [](const Norm& n) {
    if (const auto* rms = std::get_if<RmsNorm>(&n)) return std::vector{rms->weight()};
    const auto& ln = std::get<LayerNorm>(n);
    return std::vector{ln.weight(), ln.bias()};
  };
  std::vector<Linear> ups = c_.rms ? l.mlp.inputs() : std::vector<Linear>{l.fc1};
  Linear down = c_.rms ? l.mlp.down() : l.fc2;
  Topology t;
  ScaleGroup attn{.name = "norm1", .norm = norm_params(l.norm1), .linear = {}, .readers = {l.qkv}, .reader_of = {}, .channels = C, .replay = {}};
  attn.mixes_rows = true;
  attn.replay = [this, i](const at::Tensor& x, const Pass& pass) { return layers_[static_cast<size_t>(i)].proj(mix(i, x, pass), pass); };
  ScaleGroup value{.name = "v", .norm = {}, .linear = l.qkv, .linear_begin = 2 * C, .linear_count = C, .readers = {l.proj}, .reader_of = {}, .channels = C, .replay = {}};
  value.replay = [proj = l.proj](const at::Tensor& x, const Pass& pass) { return proj(x, pass); };
  ScaleGroup mlp{.name = "norm2", .norm = norm_params(l.norm2), .linear = {}, .readers = ups, .reader_of = {}, .channels = C, .replay = {}};
  mlp.replay = [this, i](const at::Tensor& x, const Pass& pass) { return feed(layers_[static_cast<size_t>(i)], x, pass); };
  t.groups = {attn, value, mlp};
  if (c_.rms) {  // a plain MLP's activation is not linear in its input, so only the gated form can pass scales through
    auto [up, begin] = l.mlp.up();
    ScaleGroup inner{.name = "up_proj", .norm = {}, .linear = up, .linear_begin = begin, .linear_count = F, .readers = {down}, .reader_of = {}, .channels = F, .replay = {}};
    inner.replay = [down](const at::Tensor& x, const Pass& pass) { return down(x, pass); };
    t.groups.push_back(inner);
  }
  t.phases = {{l.qkv}, {l.proj}, ups, {down}};
  t.residual_readers = {l.qkv};
  for (const Linear& u : ups) t.residual_readers.push_back(u);
  t.residual_writers = {l.proj, down};
  t.residual_norms = {{norm_params(l.norm1)[0], {l.qkv}}, {norm_params(l.norm2)[0], ups}};
  return t;
}

}  // namespace statera
