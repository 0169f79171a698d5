// The pre-norm decoder shared by every text model and the language half of every VLM: what differs is flags of DecoderConfig.
// Maths: x += attn(norm(x)); x += mlp(norm(x)); final norm; head.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "nn/attend.h"
#include "nn/mlp.h"
#include "nn/model.h"
#include "nn/moe.h"
#include "nn/norm.h"
#include "nn/rope.h"

namespace statera {

struct DecoderConfig {
  int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0, vocab_size = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  Activation hidden_act = Activation::silu;
  Bias qkv_bias = Bias::none, o_bias = Bias::none, mlp_bias = Bias::none;
  bool qk_norm = false;              // RMSNorm over head_dim on q and k before RoPE
  bool fused = false;                // qkv_proj and gate_up_proj
  std::vector<int64_t> windows;      // per layer, 0 = full attention
  std::optional<MoeConfig> moe;      // of the layers that `sparse` marks
  std::vector<bool> sparse;          // per layer; empty: none
  const char* moe_name = "mlp";      // where in a layer experts stand
  std::optional<bool> tie_word_embeddings;  // absent: tied when the checkpoint has no head
  RopeConfig rope;

  // The fields every family shares. `where` names the config part in errors ("config.json: text_config").
  // Throws Error(bad_file) for missing or impossible sizes.
  static DecoderConfig read(const Json& config, const std::string& where, double default_eps, double default_theta);
  // layer_types, or `window` for the layers that `uses` says (Qwen: from max_window_layers on).
  void set_windows(const Json& config, std::optional<int64_t> window, int64_t first_layer);
};

// A required size of a config, at least 1.
int64_t size_field(const Json& config, const char* key, const std::string& where);
// Error(bad_file) when more experts are to be chosen than there are.
void check_experts(const MoeConfig& moe, const std::string& where);
// The part of a config that holds the text fields: text_config when nested, else the config itself.
const Json& text_part(const Json& config);

class Decoder : public LanguageStack {
 public:
  // model: scope of embed_tokens, layers, norm; top: scope of lm_head. dtype: of activations, read at each call.
  Decoder(DecoderConfig config, const Scope& model, const Scope& top, const at::ScalarType* dtype);
  int64_t blocks() const override { return c_.num_hidden_layers; }
  at::Tensor enter(const at::Tensor& input_ids, const VisualFeatures* visual, Pass& pass) const override;
  at::Tensor block(int64_t i, const at::Tensor& h_TH, Pass& pass) const override;
  at::Tensor leave(const at::Tensor& h_TH, const Pass& pass) const override;
  at::Tensor head(const at::Tensor& h_TH, const Pass& pass) const override;
  bool cache_valid(int64_t before, int64_t after) const override { return rope_.cache_valid(before, after); }
  Topology topology(int64_t i) const override;
  const DecoderConfig& config() const { return c_; }
  ModelLimits limits() const;
  ResidualEnds residual_ends() const;

 private:
  struct Layer {
    RmsNorm input_layernorm, post_attention_layernorm, q_norm, k_norm;
    Linear q_proj, k_proj, v_proj, qkv_proj, o_proj;
    GatedMlp mlp;
    Moe moe;  // in place of mlp
    AttendSite site;
  };
  Layer make_layer(const Scope& scope, int64_t i) const;
  static at::Tensor feed_forward(const Layer& l, at::Tensor x_TH, const Pass& pass) { return l.moe ? l.moe(x_TH, pass) : l.mlp(std::move(x_TH), pass); }
  void add_feed_forward(const Layer& l, Topology& t) const;
  at::Tensor mix(const Layer& l, const at::Tensor& x_TH, const Pass& pass) const;  // attention without o_proj
  at::Tensor add_deepstack(const at::Tensor& h_TH, size_t tap, const Pass& pass) const;

  DecoderConfig c_;
  const at::ScalarType* dtype_;
  std::shared_ptr<TensorSite> embed_tokens_;
  std::vector<Layer> layers_;
  RmsNorm norm_;
  Linear lm_head_;
  Rope rope_;
};

// A text-only model: one decoder under "model.".
class TextModel : public Model {
 public:
  TextModel(const Json& config, WeightSource& source, const DecoderConfig& decoder);
  const LanguageStack& language() const override { return *decoder_; }
  ModelLimits limits() const override { return decoder_->limits(); }
  ResidualEnds residual_ends() const override { return decoder_->residual_ends(); }

 private:
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace statera
