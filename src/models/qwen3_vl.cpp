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
      const Json& v = vision_part(config);
      QwenVisionConfig c = read_vision(v, 27, 16, "gelu_pytorch_tanh");
      c.width = v.get_int("hidden_size", 1152);
      c.intermediate_size = v.get_int("intermediate_size", 4304);
      c.out_hidden_size = v.get_int("out_hidden_size", 3584);
      c.patch_bias = true;
      c.qwen3_names = true;
      c.num_position_embeddings = v.get_int("num_position_embeddings", 2304);
      c.deepstack_visual_indexes = int_list(v, "deepstack_visual_indexes", {8, 16, 24});
      return std::make_unique<QwenVl>(config, source, VlGeneration::qwen3, decoder, c);
    }};

}  // namespace statera
