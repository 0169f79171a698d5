// Qwen2 with experts and one shared expert under a sigmoid gate; routing weights are not renormalised unless the config says so.
#include "models/parts/decoder.h"
#include "models/parts/qwen_text.h"

namespace statera {

extern const ModelType kModel_qwen2_moe{
    "qwen2_moe", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto c = qwen2_decoder(config, "config.json", 1e-6, 10000);
      if (!config.get_bool("qkv_bias", true)) c.qkv_bias = Bias::none;
      add_qwen_experts(config, "config.json", false, c);
      c.moe->shared_expert_intermediate_size = size_field(config, "shared_expert_intermediate_size", "config.json");
      return std::make_unique<TextModel>(config, source, c);
    }};

}  // namespace statera
