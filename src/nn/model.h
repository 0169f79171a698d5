// Model: config, parameters and stacks of one checkpoint; ModelType: the table entry that makes one from a config.json.
// enter / block(i) / leave serve both a full forward and the sequential calibrator.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "nn/pass.h"
#include "nn/scope.h"
#include "nn/topology.h"

namespace statera {

// Grid of one image or video in patches: (t, h, w).
using Grid = std::array<int64_t, 3>;

// Tensors by their Hugging Face forward names; what is absent stays undefined.
struct ModelInputs {
  at::Tensor input_ids;            // i64 [T], sequences one after another
  SequenceBounds bounds;           // {0, ..., T}
  at::Tensor position_ids;         // i64 [T] or [3, T]; undefined: the model's own rule
  at::Tensor pixel_values;         // f32 [rows, C*Tp*p*p], images in order of appearance
  std::vector<Grid> image_grid_thw;
  at::Tensor pixel_values_videos;  // likewise
  std::vector<Grid> video_grid_thw;
  std::vector<double> second_per_grid_ts;  // Qwen2.5-VL: seconds per temporal patch of each video
};

// Sizes and times of the media of one prompt, in order: what placeholder expansion needs.
struct MediaSizes {
  std::vector<Grid> images, videos;
  std::vector<std::vector<double>> video_timestamps;  // seconds, one per temporal patch
};

// What leaves a vision tower: rows that replace placeholder embeddings, and taps added after the first decoder blocks.
struct VisualFeatures {
  at::Tensor rows_VH;
  std::vector<at::Tensor> deepstack_VH;
};

class Stack {
 public:
  virtual ~Stack() = default;
  virtual std::string name() const = 0;  // "language" or "vision"
  virtual int64_t blocks() const = 0;
  virtual at::Tensor block(int64_t i, const at::Tensor& h_TH, Pass& pass) const = 0;
  virtual Topology topology(int64_t i) const = 0;
};

class LanguageStack : public Stack {
 public:
  std::string name() const override { return "language"; }
  // Embeddings with visual rows spliced in; prepares pass.side. pass.positions and pass.bounds must be set.
  virtual at::Tensor enter(const at::Tensor& input_ids, const VisualFeatures* visual, Pass& pass) const = 0;
  // Final norm. h [T, H] -> [T, H]
  virtual at::Tensor leave(const at::Tensor& h_TH, const Pass& pass) const = 0;
  // Logits of normalised rows. [T, H] -> [T, V], fp32
  virtual at::Tensor head(const at::Tensor& h_TH, const Pass& pass) const = 0;
  // Whether cached keys survive growth of a sequence (Rope::cache_valid).
  virtual bool cache_valid(int64_t before, int64_t after) const = 0;
};

class VisionStack : public Stack {
 public:
  std::string name() const override { return "vision"; }
  virtual at::Tensor enter(const at::Tensor& pixel_values, const std::vector<Grid>& grids, Pass& pass) const = 0;
  // What enter() leaves in the pass, without the pixels.
  virtual void prepare(const std::vector<Grid>& grids, Pass& pass) const = 0;
  // Blocks whose outputs are tapped for the language stack, rising; and what tap number `tap` makes of such an output.
  virtual std::vector<int64_t> taps() const { return {}; }
  virtual at::Tensor tapped(size_t tap, const at::Tensor& h, const Pass& pass) const;
  // Everything after the last block, deepstack taps included (collected in the pass by block()).
  virtual VisualFeatures leave(const at::Tensor& h, const Pass& pass) const = 0;
};

struct ModelLimits {
  int64_t vocab_size = 0, hidden_size = 0, layers = 0, kv_heads = 0, head_dim = 0, max_positions = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  Json config;
  Params params;
  at::ScalarType dtype = at::kFloat;  // of activations

  virtual const LanguageStack& language() const = 0;
  virtual const VisionStack* vision() const { return nullptr; }
  virtual ModelLimits limits() const = 0;
  // Position ids of whole prompts and, per sequence, the position of the next token. Text models count up.
  virtual std::pair<at::Tensor, std::vector<int64_t>> positions(const ModelInputs& inputs) const;
  // Placeholder expansion of a rendered prompt (text models: unchanged; media given to a text model: Error(usage)).
  virtual std::string expand_placeholders(const std::string& prompt, const MediaSizes& media) const;
  // i8 [T], kVision at visual rows.
  virtual at::Tensor token_kinds(const at::Tensor& input_ids) const;

  // The ends of the language residual stream.
  virtual ResidualEnds residual_ends() const = 0;

  // Vision tower over all images and videos of the inputs, rows in order of the placeholders. Empty when there are none.
  virtual std::optional<VisualFeatures> see(const ModelInputs& inputs, Tap* tap = nullptr) const;
  // Rows of all images and then of all videos, in order of the placeholders.
  virtual VisualFeatures arrange(const at::Tensor& input_ids, VisualFeatures images_first) const { return images_first; }
};

// Positions, kinds and bounds of inputs as a Pass; fills position_ids by the model's rule when absent.
Pass make_pass(const Model& model, ModelInputs& inputs);
// Normalised hidden rows of every token: see, enter, all blocks, leave.
at::Tensor forward_hidden(const Model& model, ModelInputs& inputs, Pass& pass);
// Blocks of the language stack over entered rows; the tap sees each output.
at::Tensor run_blocks(const Stack& stack, at::Tensor h_TH, Pass& pass);

struct ModelType {
  const char* name;                        // model_type of config.json
  std::vector<std::string> aliases;        // further model_type values
  // Alternatives of (internal prefix -> prefix in the files), tried in order: the first that names the files' tensors is used.
  std::vector<std::vector<std::pair<std::string, std::string>>> layouts;
  std::unique_ptr<Model> (*make)(const Json& config, WeightSource& source);
};

// Generated from the files of src/models/.
std::span<const ModelType* const> model_types();
// The entry of config.json's model_type; Error(unsupported) names the nearest one and lists all.
const ModelType& model_type(const Json& config);

}  // namespace statera
