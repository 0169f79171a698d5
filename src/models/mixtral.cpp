// Mixtral: Mistral's attention, experts in every layer under names of their own (w1 gate, w3 up, w2 down), weights always renormalised.
#include "models/parts/decoder.h"

namespace statera {

extern const ModelType kModel_mixtral{
    "mixtral", {}, {{}}, [](const Json& config, WeightSource& source) -> std::unique_ptr<Model> {
      auto c = DecoderConfig::read(config, "config.json", 1e-5, 1e6);
      std::optional<int64_t> window;
      if (const Json* w = config.get("sliding_window")) window = w->as_int("config.json: sliding_window");
      c.set_windows(config, window, 0);
      MoeConfig m;
      m.hidden_size = c.hidden_size;
      m.num_experts = size_field(config, "num_local_experts", "config.json");
      m.num_experts_per_tok = size_field(config, "num_experts_per_tok", "config.json");
      m.moe_intermediate_size = c.intermediate_size;
      m.norm_topk_prob = true;
      m.act = c.hidden_act;
      m.names = {"w1", "w3", "w2"};
      check_experts(m, "config.json");
      c.moe = m;
      c.moe_name = "block_sparse_moe";
      c.sparse.assign(static_cast<size_t>(c.num_hidden_layers), true);
      return std::make_unique<TextModel>(config, source, c);
    }};

}  // namespace statera
