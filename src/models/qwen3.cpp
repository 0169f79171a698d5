// Qwen3 dense: explicit head_dim, RMSNorm on q and k per head, no biases.
#include "models/parts/decoder.h"
#include "models/parts/qwen_text.h"

namespace statera {

extern const ModelType kModel_qwen3{
    "qwen3", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      return std::make_unique<TextModel>(config, source, qwen3_decoder(config, "config.json", 10000));
    }};

}  // namespace statera
