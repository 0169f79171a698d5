// Decoder configs of the Qwen text families, shared by the text models and the language halves of Qwen-VL.
#pragma once

#include "models/parts/decoder.h"

namespace statera {

// Experts by the keys of the Qwen families (5.x renames num_experts). Layers in mlp_only_layers, and all but every decoder_sparse_step-th,
// are dense. normalise: the class default of norm_topk_prob.
void add_qwen_experts(const Json& config, const std::string& where, bool normalise, DecoderConfig& decoder);

// q/k/v bias, no o bias; sliding window only with use_sliding_window.
inline DecoderConfig qwen2_decoder(const Json& config, const std::string& where, double default_eps, double default_theta) {
  auto c = DecoderConfig::read(config, where, default_eps, default_theta);
  c.qkv_bias = Bias::yes;
  if (config.get_bool("use_sliding_window", false)) {
    c.set_windows(config, config.get_int("sliding_window", 4096), config.get_int("max_window_layers", 28));
  }
  return c;
}

// q and k normed per head; biases only with attention_bias.
inline DecoderConfig qwen3_decoder(const Json& config, const std::string& where, double default_theta) {
  auto c = DecoderConfig::read(config, where, 1e-6, default_theta);
  if (!config.get("head_dim")) {
    c.head_dim = 128;  // the class default, whatever H/N
    c.rope.head_dim = 128;
  }
  c.qk_norm = true;
  if (config.get_bool("attention_bias", false)) c.qkv_bias = c.o_bias = Bias::yes;
  if (config.get_bool("use_sliding_window", false)) {
    c.set_windows(config, config.get_int("sliding_window", 4096), config.get_int("max_window_layers", 28));
  }
  return c;
}

}  // namespace statera
