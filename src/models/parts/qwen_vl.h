// What the three Qwen-VL generations share above their tower and decoder: placeholder expansion, M-RoPE positions, the order of features.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/parts/decoder.h"
#include "models/parts/qwen_vision.h"

namespace statera {

enum class VlGeneration { qwen2, qwen2_5, qwen3 };

struct QwenVlIds {
  int64_t image = 151655, video = 151656, vision_start = 151652, vision_end = 151653;
};

// Position rows (t, h, w) of ragged prompts, i64 [3, T], and the next position of each sequence: one past the largest of all three
// rows. seconds: per video, seconds per temporal patch (Qwen2.5-VL). Runs of placeholders that do not fit the grids: Error(mismatch).
std::pair<at::Tensor, std::vector<int64_t>> mrope_positions(const ModelInputs& inputs, const QwenVlIds& ids, VlGeneration generation, int64_t merge,
                                                            double tokens_per_second);

class QwenVl : public Model {
 public:
  QwenVl(const Json& config, WeightSource& source, VlGeneration generation, const DecoderConfig& decoder, const QwenVisionConfig& tower);
  const LanguageStack& language() const override { return *decoder_; }
  const VisionStack* vision() const override { return tower_.get(); }
  ModelLimits limits() const override { return decoder_->limits(); }
  std::pair<at::Tensor, std::vector<int64_t>> positions(const ModelInputs& inputs) const override;
  std::string expand_placeholders(const std::string& prompt, const MediaSizes& media) const override;
  at::Tensor token_kinds(const at::Tensor& input_ids) const override;
  ResidualEnds residual_ends() const override;
  std::optional<VisualFeatures> see(const ModelInputs& inputs, Tap* tap) const override;
  VisualFeatures arrange(const at::Tensor& input_ids, VisualFeatures images_first) const override;

 private:
  VisualFeatures run_tower(const at::Tensor& pixels, const std::vector<Grid>& grids, Tap* tap) const;
  VlGeneration generation_;
  QwenVlIds ids_;
  double tokens_per_second_ = 1;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<QwenVision> tower_;
};

// The fields of vision_config that all three towers spell alike: depth, num_heads, channels, patch and merge sizes.
QwenVisionConfig read_vision(const Json& vision, int64_t default_depth, int64_t default_patch, const char* default_act);
// The tower of Qwen3-VL, dense and with experts.
QwenVisionConfig qwen3_tower(const Json& config);
// tie_word_embeddings of the top level goes before the text part's.
void read_top_level_tie(const Json& config, DecoderConfig& decoder);
// Reads an integer list such as fullatt_block_indexes; `otherwise` when absent.
std::vector<int64_t> int_list(const Json& config, const char* key, std::vector<int64_t> otherwise);
// vision_config, or Error(bad_file).
const Json& vision_part(const Json& config);

}  // namespace statera
