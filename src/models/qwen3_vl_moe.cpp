// Qwen3-VL with experts: tower and positions of Qwen3-VL dense, the language half of Qwen3-MoE. Weights are always renormalised, whatever
// the config says. Released checkpoints hold a block's experts in one tensor (ckpt/fused_experts.h).
#include "models/parts/qwen_text.h"
#include "models/parts/qwen_vl.h"

namespace statera {

extern const ModelType kModel_qwen3_vl_moe{
    "qwen3_vl_moe", {}, {{}, {{"model.visual.", "visual."}, {"model.language_model.", "model."}}},
    [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      const Json& text = config.at("text_config", "config.json");
      auto decoder = qwen3_decoder(text, "config.json: text_config", 500000);
      add_qwen_experts(text, "config.json: text_config", true, decoder);
      decoder.moe->norm_topk_prob = true;
      read_top_level_tie(config, decoder);
      return std::make_unique<QwenVl>(config, source, VlGeneration::qwen3, decoder, qwen3_tower(config));
    }};

}  // namespace statera
