// Llama 1 to 3 and its look-alikes: GQA, no biases unless the config says so, every rope scaling.
#include "models/parts/decoder.h"

namespace statera {

extern const ModelType kModel_llama{
    "llama", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto c = DecoderConfig::read(config, "config.json", 1e-6, 10000);
      if (config.get_bool("attention_bias", false)) c.qkv_bias = c.o_bias = Bias::yes;
      if (config.get_bool("mlp_bias", false)) c.mlp_bias = Bias::yes;
      return std::make_unique<TextModel>(config, source, c);
    }};

}  // namespace statera
