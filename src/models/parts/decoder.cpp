// Shapes: T rows, H hidden, N query heads, K key heads, d head width, F MLP width, V vocabulary.
#include "models/parts/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_copy.h>

#include "base/error.h"
#include "base/profile.h"
#include "nn/elementwise.h"

namespace statera {

int64_t size_field(const Json& config, const char* key, const std::string& where) {
  int64_t v = config.at(key, where).as_int(where + "." + key);
  if (v < 1 || v > (int64_t{1} << 31)) throw Error(ErrorKind::bad_file, where + "." + key + ": " + std::to_string(v) + " is out of range");
  return v;
}

void check_experts(const MoeConfig& m, const std::string& where) {
  if (m.num_experts_per_tok >= 1 && m.num_experts_per_tok <= m.num_experts) return;
  throw Error(ErrorKind::bad_file, where + ".num_experts_per_tok: " + std::to_string(m.num_experts_per_tok) + " of " + std::to_string(m.num_experts) +
                                       " experts cannot be chosen");
}

const Json& text_part(const Json& config) {
  const Json* text = config.get("text_config");
  return text ? *text : config;
}

DecoderConfig DecoderConfig::read(const Json& config, const std::string& where, double default_eps, double default_theta) {
  DecoderConfig c;
  c.hidden_size = size_field(config, "hidden_size", where);
  c.intermediate_size = size_field(config, "intermediate_size", where);
  c.num_hidden_layers = size_field(config, "num_hidden_layers", where);
  c.vocab_size = size_field(config, "vocab_size", where);
  c.num_attention_heads = size_field(config, "num_attention_heads", where);
  c.num_key_value_heads = config.get("num_key_value_heads") ? size_field(config, "num_key_value_heads", where) : c.num_attention_heads;
  if (c.num_attention_heads % c.num_key_value_heads) {
    throw Error(ErrorKind::bad_file, where + ": num_attention_heads " + std::to_string(c.num_attention_heads) + " is no multiple of num_key_value_heads " +
                                         std::to_string(c.num_key_value_heads));
  }
  c.head_dim = config.get("head_dim") ? size_field(config, "head_dim", where) : c.hidden_size / c.num_attention_heads;
  c.max_position_embeddings = config.get_int("max_position_embeddings", 2048);
  c.rms_norm_eps = config.get_double("rms_norm_eps", default_eps);
  c.hidden_act = parse_activation(config.get_string("hidden_act", "silu"));
  if (const Json* tie = config.get("tie_word_embeddings")) c.tie_word_embeddings = tie->as_bool(where + ".tie_word_embeddings");
  c.windows.assign(static_cast<size_t>(c.num_hidden_layers), 0);
  c.rope = RopeConfig::from_config(config, c.head_dim, default_theta);
  return c;
}

void DecoderConfig::set_windows(const Json& config, std::optional<int64_t> window, int64_t first_layer) {
  const Json* types = config.get("layer_types");
  if (types && types->as_array("layer_types").size() != windows.size()) {
    throw Error(ErrorKind::bad_file, "config.json: layer_types has " + std::to_string(types->as_array().size()) + " entries for " + std::to_string(windows.size()) + " layers");
  }
  for (size_t i = 0; i < windows.size(); ++i) {
    bool slides = static_cast<int64_t>(i) >= first_layer;
    if (types) slides = types->as_array()[i].as_string("layer_types") == "sliding_attention";
    windows[i] = slides && window ? *window : 0;
  }
}

Decoder::Decoder(DecoderConfig config, const Scope& model, const Scope& top, const at::ScalarType* dtype)
    : c_(std::move(config)), dtype_(dtype), rope_(c_.rope) {
  embed_tokens_ = (model / "embed_tokens").tensor("weight", {c_.vocab_size, c_.hidden_size}, Role::embedding);
  for (int64_t i = 0; i < c_.num_hidden_layers; ++i) layers_.push_back(make_layer((model / "layers" / i).at_block(i), i));
  norm_ = RmsNorm(model / "norm", c_.hidden_size, c_.rms_norm_eps);
  bool tied = c_.tie_word_embeddings.value_or(!top.has("lm_head.weight"));
  lm_head_ = tied ? top.tied("lm_head", embed_tokens_) : top.linear("lm_head", c_.vocab_size, c_.hidden_size, Bias::none, Role::head);
}

Decoder::Layer Decoder::make_layer(const Scope& scope, int64_t i) const {
  const int64_t H = c_.hidden_size, N = c_.num_attention_heads, K = c_.num_key_value_heads, d = c_.head_dim;
  Layer l;
  l.input_layernorm = RmsNorm(scope / "input_layernorm", H, c_.rms_norm_eps);
  l.post_attention_layernorm = RmsNorm(scope / "post_attention_layernorm", H, c_.rms_norm_eps);
  Scope attn = (scope / "self_attn").as(Role::attention);
  if (c_.fused) {
    l.qkv_proj = attn.linear("qkv_proj", (N + 2 * K) * d, H, c_.qkv_bias);
  } else {
    l.q_proj = attn.linear("q_proj", N * d, H, c_.qkv_bias);
    l.k_proj = attn.linear("k_proj", K * d, H, c_.qkv_bias);
    l.v_proj = attn.linear("v_proj", K * d, H, c_.qkv_bias);
  }
  l.o_proj = attn.linear("o_proj", H, N * d, c_.o_bias);
  if (c_.qk_norm) {
    l.q_norm = RmsNorm(attn / "q_norm", d, c_.rms_norm_eps);
    l.k_norm = RmsNorm(attn / "k_norm", d, c_.rms_norm_eps);
  }
  if (!c_.sparse.empty() && c_.sparse[static_cast<size_t>(i)]) {
    l.moe = Moe(scope / c_.moe_name, *c_.moe);
  } else {
    l.mlp = GatedMlp((scope / "mlp").as(Role::mlp), H, c_.intermediate_size, c_.hidden_act, c_.mlp_bias, c_.fused);
  }
  l.site.layer = i;
  l.site.window = c_.windows[static_cast<size_t>(i)];
  return l;
}

at::Tensor Decoder::enter(const at::Tensor& input_ids, const VisualFeatures* visual, Pass& pass) const {
  const profile::Span span("embedding");
  at::Tensor h = at::embedding(embed_tokens_->value, input_ids).to(*dtype_);
  auto side = std::make_shared<Side>();
  std::tie(side->cos_TR, side->sin_TR) = rope_.tables(pass.positions, pass.bounds);
  if (visual) {
    side->visual_rows = (pass.kinds == static_cast<int64_t>(kVision)).nonzero().squeeze(1);
    if (side->visual_rows.size(0) != visual->rows_VH.size(0)) {
      throw Error(ErrorKind::mismatch, "the prompt holds " + std::to_string(side->visual_rows.size(0)) + " image and video placeholders, the pictures give " +
                                           std::to_string(visual->rows_VH.size(0)) + " features");
    }
    h = at::index_copy(h, 0, side->visual_rows, visual->rows_VH.to(h.scalar_type()));
    for (const auto& tap : visual->deepstack_VH) side->deepstack_VH.push_back(tap.to(h.scalar_type()));
  }
  pass.side = std::move(side);
  return h;
}

at::Tensor Decoder::add_deepstack(const at::Tensor& h, size_t tap, const Pass& pass) const {
  if (tap >= pass.side->deepstack_VH.size()) return h;
  return at::index_add(h, 0, pass.side->visual_rows, pass.side->deepstack_VH[tap]);
}

at::Tensor Decoder::mix(const Layer& l, const at::Tensor& x, const Pass& pass) const {
  const int64_t T = x.size(0), N = c_.num_attention_heads, K = c_.num_key_value_heads, d = c_.head_dim;
  at::Tensor q, k, v;
  if (l.qkv_proj) {
    at::Tensor qkv = l.qkv_proj(x, pass);
    q = qkv.slice(1, 0, N * d);
    k = qkv.slice(1, N * d, (N + K) * d);
    v = qkv.slice(1, (N + K) * d, (N + 2 * K) * d);
  } else if (auto qkv = together({&l.q_proj, &l.k_proj, &l.v_proj}, x, pass)) {
    q = (*qkv)[0];
    k = (*qkv)[1];
    v = (*qkv)[2];
  } else {
    q = l.q_proj(x, pass);
    k = l.k_proj(x, pass);
    v = l.v_proj(x, pass);
  }
  q = q.reshape({T, N, d});
  k = k.reshape({T, K, d});
  if (c_.qk_norm) {
    q = l.q_norm(q);
    k = l.k_norm(k);
  }
  q = apply_rope(q, pass.side->cos_TR, pass.side->sin_TR);
  k = apply_rope(k, pass.side->cos_TR, pass.side->sin_TR);
  return attend(q, k, v.reshape({T, K, d}), l.site, pass);
}

// The taps of block i-1 are added here, so that a block's output is what the reference calls its hidden state.
at::Tensor Decoder::block(int64_t i, const at::Tensor& h_TH, Pass& pass) const {
  const Layer& l = layers_[static_cast<size_t>(i)];
  at::Tensor h = i > 0 ? add_deepstack(h_TH, static_cast<size_t>(i - 1), pass) : h_TH;
  h = sum(h, l.o_proj(mix(l, l.input_layernorm(h), pass), pass));
  return sum(h, feed_forward(l, l.post_attention_layernorm(h), pass));
}

at::Tensor Decoder::leave(const at::Tensor& h_TH, const Pass& pass) const {
  return norm_(add_deepstack(h_TH, static_cast<size_t>(c_.num_hidden_layers - 1), pass));
}

at::Tensor Decoder::head(const at::Tensor& h_TH, const Pass& pass) const { return lm_head_(h_TH, pass).to(at::kFloat); }

Topology Decoder::topology(int64_t i) const {
  const Layer& l = layers_.at(static_cast<size_t>(i));
  const int64_t N = c_.num_attention_heads, K = c_.num_key_value_heads, d = c_.head_dim, H = c_.hidden_size;
  std::vector<Linear> qkv = l.qkv_proj ? std::vector<Linear>{l.qkv_proj} : std::vector<Linear>{l.q_proj, l.k_proj, l.v_proj};
  Topology t;
  ScaleGroup attn{.name = "input_layernorm", .norm = {l.input_layernorm.weight()}, .linear = {}, .readers = qkv, .reader_of = {}, .channels = H, .replay = {}};
  attn.mixes_rows = true;
  attn.replay = [this, i](const at::Tensor& x, const Pass& pass) {
    const Layer& m = layers_[static_cast<size_t>(i)];
    return m.o_proj(mix(m, x, pass), pass);
  };
  ScaleGroup value{.name = "v_proj", .norm = {}, .linear = l.qkv_proj ? l.qkv_proj : l.v_proj, .linear_begin = l.qkv_proj ? (N + K) * d : 0,
                   .linear_count = K * d, .readers = {l.o_proj}, .reader_of = {}, .channels = K * d, .replay = {}};
  for (int64_t c = 0; c < N * d; ++c) value.reader_of.push_back(c / d / (N / K) * d + c % d);
  value.replay = [o = l.o_proj](const at::Tensor& x, const Pass& pass) { return o(x, pass); };
  t.groups = {attn, value};
  t.phases = {qkv, {l.o_proj}};
  t.residual_readers = qkv;
  t.residual_writers = {l.o_proj};
  t.residual_norms = {{l.input_layernorm.weight(), qkv}};
  add_feed_forward(l, t);
  return t;
}

// Experts are rounded behind their router and each side of them at once: which tokens reach them is settled by then.
void Decoder::add_feed_forward(const Layer& l, Topology& t) const {
  const std::vector<Linear> readers = l.moe ? l.moe.readers() : l.mlp.inputs(), writers = l.moe ? l.moe.writers() : std::vector<Linear>{l.mlp.down()};
  ScaleGroup entry{.name = "post_attention_layernorm", .norm = {l.post_attention_layernorm.weight()}, .linear = {}, .readers = readers, .reader_of = {},
                   .channels = c_.hidden_size, .replay = {}};
  entry.replay = [&l](const at::Tensor& x, const Pass& pass) { return feed_forward(l, x, pass); };
  t.groups.push_back(std::move(entry));
  if (l.moe) {
    t.groups.back().whole = l.moe.router();
    for (ScaleGroup& g : l.moe.inner_groups()) t.groups.push_back(std::move(g));
    t.phases.push_back({l.moe.router()});
    t.phases.emplace_back(readers.begin() + 1, readers.end());
  } else {
    t.groups.push_back(l.mlp.inner_group("up_proj"));
    t.phases.push_back(readers);
  }
  t.phases.push_back(writers);
  t.residual_readers.insert(t.residual_readers.end(), readers.begin(), readers.end());
  t.residual_writers.insert(t.residual_writers.end(), writers.begin(), writers.end());
  t.residual_norms.emplace_back(l.post_attention_layernorm.weight(), readers);
}

ResidualEnds Decoder::residual_ends() const { return {embed_tokens_, {}, norm_.weight(), lm_head_}; }

ModelLimits Decoder::limits() const {
  // These two scalings stretch the length that max_position_embeddings states; the others state the stretched one.
  const bool stretched = c_.rope.kind == "dynamic" || c_.rope.kind == "linear";
  const auto positions = static_cast<int64_t>(static_cast<double>(c_.max_position_embeddings) * (stretched ? std::max(1.0, c_.rope.factor) : 1.0));
  return {c_.vocab_size, c_.hidden_size, c_.num_hidden_layers, c_.num_key_value_heads, c_.head_dim, positions};
}

TextModel::TextModel(const Json& config_json, WeightSource& source, const DecoderConfig& decoder) {
  config = config_json;
  Scope top(source, params);
  decoder_ = std::make_unique<Decoder>(decoder, top / "model", top, &dtype);
}

}  // namespace statera
