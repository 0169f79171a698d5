// Qwen2-VL: LayerNorm tower with quick GELU, contiguous M-RoPE. The released config is flat; embed_dim is the tower's width and
// vision_config.hidden_size the language model's.
#include "models/parts/qwen_text.h"
#include "models/parts/qwen_vl.h"

namespace statera {

extern const ModelType kModel_qwen2_vl{
    "qwen2_vl", {}, {{{"model.visual.", "visual."}, {"model.language_model.", "model."}}, {}},
    [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto decoder = qwen2_decoder(text_part(config), "config.json", 1e-5, 1000000);
      read_top_level_tie(config, decoder);
      const Json& v = vision_part(config);
      QwenVisionConfig c = read_vision(v, 32, 14, "quick_gelu");
      c.width = v.get_int("embed_dim", 1280);
      c.intermediate_size = static_cast<int64_t>(static_cast<double>(c.width) * v.get_double("mlp_ratio", 4));
      c.out_hidden_size = v.get_int("hidden_size", 3584);
      return std::make_unique<QwenVl>(config, source, VlGeneration::qwen2, decoder, c);
    }};

}  // namespace statera
