// Qwen2.5-VL: RMSNorm tower with gated MLP and window attention; video positions advance with time.
#include "models/parts/qwen_text.h"
#include "models/parts/qwen_vl.h"

namespace statera {

extern const ModelType kModel_qwen2_5_vl{
    "qwen2_5_vl", {}, {{{"model.visual.", "visual."}, {"model.language_model.", "model."}}, {}},
    [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto decoder = qwen2_decoder(text_part(config), "config.json", 1e-5, 1000000);
      read_top_level_tie(config, decoder);
      const Json& v = vision_part(config);
      QwenVisionConfig c = read_vision(v, 32, 14, "silu");
      c.width = v.get_int("hidden_size", 3584);
      c.intermediate_size = v.get_int("intermediate_size", 3420);
      c.out_hidden_size = v.get_int("out_hidden_size", 3584);
      c.rms = true;
      c.window_size = v.get_int("window_size", 112);
      c.fullatt_block_indexes = int_list(v, "fullatt_block_indexes", {7, 15, 23, 31});
      return std::make_unique<QwenVl>(config, source, VlGeneration::qwen2_5, decoder, c);
    }};

}  // namespace statera
