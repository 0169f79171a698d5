// Mistral: Llama with an optional sliding window over all layers.
#include "models/parts/decoder.h"

namespace statera {

extern const ModelType kModel_mistral{
    "mistral", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto c = DecoderConfig::read(config, "config.json", 1e-6, 10000);
      std::optional<int64_t> window;
      if (const Json* w = config.get("sliding_window")) window = w->as_int("config.json: sliding_window");
      c.set_windows(config, window, 0);
      return std::make_unique<TextModel>(config, source, c);
    }};

}  // namespace statera
