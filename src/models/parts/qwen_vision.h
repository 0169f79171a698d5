// The vision tower of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patch rows, 2-D RoPE at native resolution, attention per frame (or per window),
// a 2x2 merger. The generations differ by flags. Rows come in merged-block order: 4 consecutive rows make one token.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <variant>
#include <vector>

#include "nn/attend.h"
#include "nn/mlp.h"
#include "nn/model.h"
#include "nn/norm.h"

namespace statera {

struct QwenVisionConfig {
  int64_t depth = 0, width = 0, num_heads = 0, intermediate_size = 0, out_hidden_size = 0;
  int64_t in_channels = 3, patch_size = 14, temporal_patch_size = 2, spatial_merge_size = 2;
  Activation act = Activation::quick_gelu;
  bool patch_bias = false;
  bool rms = false;                              // RMSNorm and gated MLP (Qwen2.5-VL)
  bool qwen3_names = false;                      // linear_fc1/2, merger.norm, learned positions
  int64_t num_position_embeddings = 0;           // a square table; 0: none
  int64_t window_size = 0;                       // pixels; 0: full attention everywhere
  std::vector<int64_t> fullatt_block_indexes;    // with windows: the blocks that still attend to whole frames
  std::vector<int64_t> deepstack_visual_indexes; // blocks whose outputs are merged and tapped
};

class QwenVision : public VisionStack {
 public:
  // scope: where "patch_embed", "blocks" and "merger" lie. dtype: of activations, read at each call.
  QwenVision(QwenVisionConfig config, const Scope& scope, const at::ScalarType* dtype);
  int64_t blocks() const override { return c_.depth; }
  at::Tensor enter(const at::Tensor& pixel_values, const std::vector<Grid>& grids, Pass& pass) const override;
  void prepare(const std::vector<Grid>& grids, Pass& pass) const override;
  std::vector<int64_t> taps() const override { return c_.deepstack_visual_indexes; }
  at::Tensor tapped(size_t tap, const at::Tensor& h, const Pass& pass) const override { return merge(deepstack_mergers_.at(tap), h, pass); }
  at::Tensor block(int64_t i, const at::Tensor& h, Pass& pass) const override;
  VisualFeatures leave(const at::Tensor& h, const Pass& pass) const override;
  Topology topology(int64_t i) const override;
  const QwenVisionConfig& config() const { return c_; }
  // Last layers of the mergers: what writes into the language model's stream.
  std::vector<Linear> output_layers() const;

 private:
  using Norm = std::variant<std::monostate, RmsNorm, LayerNorm>;
  struct Layer {
    Norm norm1, norm2;
    Linear qkv, proj, fc1, fc2;
    std::shared_ptr<AttendSite> attention;
    GatedMlp mlp;
  };
  struct Merger {
    Norm norm;
    bool norm_after_shuffle = false;
    Linear fc1, fc2;
  };
  Norm make_norm(const Scope& scope, int64_t size) const;
  Merger make_merger(const Scope& scope, bool after_shuffle) const;
  at::Tensor merge(const Merger& m, const at::Tensor& h, const Pass& pass) const;
  at::Tensor mix(int64_t i, const at::Tensor& x, const Pass& pass) const;
  at::Tensor feed(const Layer& l, const at::Tensor& x, const Pass& pass) const;
  at::Tensor position_rows(const std::vector<Grid>& grids) const;

  QwenVisionConfig c_;
  const at::ScalarType* dtype_;
  Linear patch_embed_;
  std::shared_ptr<TensorSite> pos_embed_;
  std::vector<Layer> layers_;
  Merger merger_;
  std::vector<Merger> deepstack_mergers_;
};

// (y, x) of every patch row of the grids in merged-block order, frames repeated. i64 [rows, 2]
at::Tensor patch_coordinates(const std::vector<Grid>& grids, int64_t merge);
// Row bounds of the frames: each (h, w) frame is one sequence.
SequenceBounds frame_bounds(const std::vector<Grid>& grids);

// Window order of merged units (Qwen2.5-VL): index[k] = unit at place k, and patch-row bounds of the windows (empty ones vanish).
struct WindowPlan {
  std::vector<int64_t> index;
  SequenceBounds bounds;
};
WindowPlan plan_windows(const std::vector<Grid>& grids, int64_t merge, int64_t window_units);

// Bilinear taps (align_corners) of a side x side table for every patch row: rows i64 [4, P] and weights f32 [4, P], merged-block order.
std::pair<at::Tensor, at::Tensor> interpolation_taps(const std::vector<Grid>& grids, int64_t side, int64_t merge);

}  // namespace statera
