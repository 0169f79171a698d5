// Qwen3 with experts: attention as in Qwen3 dense; routing weights renormalised where the config says so (released ones do).
#include "models/parts/decoder.h"
#include "models/parts/qwen_text.h"

namespace statera {

extern const ModelType kModel_qwen3_moe{
    "qwen3_moe", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto c = qwen3_decoder(config, "config.json", 10000);
      add_qwen_experts(config, "config.json", false, c);
      return std::make_unique<TextModel>(config, source, c);
    }};

}  // namespace statera
