// Qwen2-VL: LayerNorm tower with quick GELU, contiguous M-RoPE. The released config is flat; embed_dim is the tower's width and
// vision_config.hidden_size the language model's.
#include "models/parts/qwen_text.h"
#include "models/parts/qwen_vl.h"

namespace statera {

extern const ModelType kModel_qwen2_vl{
    "qwen2_vl", {}, {{{"model.visual.", "visual."}, {"model.language_model.", "model."}}, {}},
    [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto decoder = qwen2_decoder(text_part(config), "config.json", 1e-5, 1000000);
      if (const Json* tie = config.get("tie_word_embeddings")) decoder.tie_word_embeddings = tie->as_bool("config.json: tie_word_embeddings");
      const Json& v = vision_part(config);
      QwenVisionConfig c;
      c.depth = v.get_int("depth", 32);
      c.width = v.get_int("embed_dim", 1280);
      c.num_heads = v.get_int("num_heads", 16);
      c.intermediate_size = static_cast<int64_t>(static_cast<double>(c.width) * v.get_double("mlp_ratio", 4));
      c.out_hidden_size = v.get_int("hidden_size", 3584);
      c.in_channels = v.get_int("in_channels", v.get_int("in_chans", 3));
      c.patch_size = v.get_int("patch_size", 14);
      c.temporal_patch_size = v.get_int("temporal_patch_size", 2);
      c.spatial_merge_size = v.get_int("spatial_merge_size", 2);
      c.act = parse_activation(v.get_string("hidden_act", "quick_gelu"));
      return std::make_unique<QwenVl>(config, source, VlGeneration::qwen2, decoder, c);
    }};

}  // namespace statera
