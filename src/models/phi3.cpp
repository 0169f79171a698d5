// Phi-3: packed qkv_proj (rows q | k | v) and gate_up_proj, longrope, possibly partial rotation.
#include "models/parts/decoder.h"

namespace statera {

extern const ModelType kModel_phi3{
    "phi3", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto c = DecoderConfig::read(config, "config.json", 1e-5, 10000);
      c.fused = true;
      std::optional<int64_t> window;
      if (const Json* w = config.get("sliding_window")) window = w->as_int("config.json: sliding_window");
      c.set_windows(config, window, 0);
      // The class default of 4096 stands where a config leaves the trained length out.
      if (!config.get("original_max_position_embeddings") && c.rope.kind == "longrope" &&
          c.rope.original_max_position_embeddings == c.rope.max_position_embeddings) {
        c.rope.original_max_position_embeddings = 4096;
      }
      return std::make_unique<TextModel>(config, source, c);
    }};

}  // namespace statera
