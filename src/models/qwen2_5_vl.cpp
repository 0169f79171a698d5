// Qwen2.5-VL: RMSNorm tower with gated MLP and window attention; video positions advance with time.
#include "models/parts/qwen_text.h"
#include "models/parts/qwen_vl.h"

namespace statera {

extern const ModelType kModel_qwen2_5_vl{
    "qwen2_5_vl", {}, {{{"model.visual.", "visual."}, {"model.language_model.", "model."}}, {}},
    [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto decoder = qwen2_decoder(text_part(config), "config.json", 1e-5, 1000000);
      if (const Json* tie = config.get("tie_word_embeddings")) decoder.tie_word_embeddings = tie->as_bool("config.json: tie_word_embeddings");
      const Json& v = vision_part(config);
      QwenVisionConfig c;
      c.depth = v.get_int("depth", 32);
      c.width = v.get_int("hidden_size", 3584);
      c.num_heads = v.get_int("num_heads", 16);
      c.intermediate_size = v.get_int("intermediate_size", 3420);
      c.out_hidden_size = v.get_int("out_hidden_size", 3584);
      c.in_channels = v.get_int("in_channels", v.get_int("in_chans", 3));
      c.patch_size = v.get_int("patch_size", 14);
      c.temporal_patch_size = v.get_int("temporal_patch_size", 2);
      c.spatial_merge_size = v.get_int("spatial_merge_size", 2);
      c.act = parse_activation(v.get_string("hidden_act", "silu"));
      c.rms = true;
      c.window_size = v.get_int("window_size", 112);
      c.fullatt_block_indexes = int_list(v, "fullatt_block_indexes", {7, 15, 23, 31});
      return std::make_unique<QwenVl>(config, source, VlGeneration::qwen2_5, decoder, c);
    }};

}  // namespace statera
