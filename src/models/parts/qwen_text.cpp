// See qwen_text.h.
#include "models/parts/qwen_text.h"

#include <algorithm>

namespace statera {

void add_qwen_experts(const Json& config, const std::string& where, bool normalise, DecoderConfig& decoder) {
  MoeConfig m;
  m.hidden_size = decoder.hidden_size;
  m.num_experts = size_field(config, config.get("num_experts") ? "num_experts" : "num_local_experts", where);
  m.num_experts_per_tok = size_field(config, "num_experts_per_tok", where);
  m.moe_intermediate_size = size_field(config, "moe_intermediate_size", where);
  m.norm_topk_prob = config.get_bool("norm_topk_prob", normalise);
  m.act = decoder.hidden_act;
  check_experts(m, where);
  std::vector<int64_t> dense;
  if (const Json* list = config.get("mlp_only_layers")) {
    for (const Json& i : list->as_array(where + ".mlp_only_layers")) dense.push_back(i.as_int(where + ".mlp_only_layers"));
  }
  const int64_t step = config.get("decoder_sparse_step") ? size_field(config, "decoder_sparse_step", where) : 1;
  for (int64_t i = 0; i < decoder.num_hidden_layers; ++i) {
    decoder.sparse.push_back((i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end());
  }
  decoder.moe = m;
}

}  // namespace statera
