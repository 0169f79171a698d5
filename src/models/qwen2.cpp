// Qwen2 and Qwen2.5: q/k/v biases; the sliding window counts only with use_sliding_window, from max_window_layers on.
#include "models/parts/decoder.h"
#include "models/parts/qwen_text.h"

namespace statera {

extern const ModelType kModel_qwen2{
    "qwen2", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      return std::make_unique<TextModel>(config, source, qwen2_decoder(config, "config.json", 1e-6, 10000));
    }};

}  // namespace statera
