// Qwen3-VL dense: patches of 16 with bias, interpolated learned positions, deepstack taps, interleaved M-RoPE; video frames split by
// timestamps.
#include "models/parts/qwen_text.h"
#include "models/parts/qwen_vl.h"

namespace statera {

extern const ModelType kModel_qwen3_vl{
    "qwen3_vl", {}, {{}, {{"model.visual.", "visual."}, {"model.language_model.", "model."}}},
    [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto decoder = qwen3_decoder(config.at("text_config", "config.json"), "config.json: text_config", 500000);
      read_top_level_tie(config, decoder);
      return std::make_unique<QwenVl>(config, source, VlGeneration::qwen3, decoder, qwen3_tower(config));
    }};

}  // namespace statera
