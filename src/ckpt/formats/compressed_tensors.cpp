// compressed-tensors: pack-quantized (2 to 8 bits in 32-bit words) and int-quantized (int8 codes, int8 activations with dynamic or static scales).
// The tensors of a layer decide whether it is quantized; the config says how. Names and layouts: docs/formats.md.
#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>

#include <cmath>

#include "base/error.h"
#include "base/strings.h"
#include "ckpt/ct_config.h"
#include "ckpt/format.h"
#include "ckpt/packing.h"

namespace statera {
namespace {

// Where and how the codes of one layer lie.
struct Layer {
  StoredLinear stored;
  bool packed = false;  // weight_packed, else int8 weight
  Packing packing = Packing::dense;
  bool zero_packed = true;  // zero points in words along the outputs, else plain i8 [out, G]
};

bool has_input_scale(const StoredLinear& l) { return l.act && l.act->is_static; }

bool is_floating(at::ScalarType t) { return t == at::kFloat || t == at::kBFloat16 || t == at::kHalf; }

void expect(const Checkpoint& c, const std::string& name, at::ScalarType dtype, const std::vector<int64_t>& shape) {
  const TensorInfo* info = c.find(name);
  if (!info) throw Error(ErrorKind::bad_file, c.place(name) + ": missing");
  if (info->dtype != dtype || info->shape != shape) {
    throw Error(ErrorKind::bad_file, c.place(name) + ": " + info->type->name + " " + shape_string(info->shape) + ", expected " +
                                         stored_type(dtype).name + " " + shape_string(shape));
  }
}

// Scales are [out, G]; whole-tensor ones [1] or [].
at::ScalarType check_scale(const Checkpoint& c, const std::string& name, int64_t out, int64_t groups) {
  const TensorInfo* info = c.find(name);
  if (!info) throw Error(ErrorKind::bad_file, c.place(name) + ": missing");
  if (!is_floating(info->dtype)) {
    throw Error(ErrorKind::unsupported, c.place(name) + ": scales of dtype " + info->type->name + ", expected F32, BF16 or F16");
  }
  const bool whole = groups == 1 && info->elements() == 1 && info->shape.size() <= 1;
  if (!whole && info->shape != std::vector<int64_t>{out, groups}) {
    throw Error(ErrorKind::bad_file,
                c.place(name) + ": shape " + shape_string(info->shape) + ", expected " + shape_string(std::vector<int64_t>{out, groups}));
  }
  return info->dtype;
}

void check_zero(const Checkpoint& c, Layer& layer, int64_t out, int64_t groups) {
  const std::string name = layer.stored.path + ".weight_zero_point";
  const TensorInfo* info = c.find(name);
  layer.zero_packed = layer.packed && !(info && info->dtype == at::kChar);
  if (layer.zero_packed) {
    expect(c, name, at::kInt, {packed_words(out, layer.stored.spec.bits, layer.packing), groups});
  } else if (!(info && info->dtype == at::kChar && groups == 1 && info->elements() == 1)) {
    expect(c, name, at::kChar, {out, groups});
  }
}

// The static scale of a layer's inputs: [1] or [].
float read_input_scale(const Checkpoint& c, const std::string& name) {
  check_scale(c, name, 1, 1);
  const float scale = c.tensor(name).to(at::kFloat).item<float>();
  if (!(scale > 0 && std::isfinite(scale))) throw Error(ErrorKind::bad_file, c.place(name) + ": holds " + std::to_string(scale) + ", expected a positive number");
  return scale;
}

// Module "visual.merger.mlp.0" of a config without a scheme for it, a dense weight, ...
std::optional<Layer> find_layer(const Checkpoint& c, const Json& config, const std::string& path, int64_t out, int64_t in) {
  const std::string packed = path + ".weight_packed", plain = path + ".weight";
  const TensorInfo* dense = c.find(plain);
  if (c.has(packed) && dense) throw Error(ErrorKind::bad_file, c.place(packed) + ": the layer also has a plain weight");
  const CtConfig parsed = with_context(c.directory() + "/config.json: quantization_config", [&] { return parse_ct_config(config); });
  const CtScheme* scheme = parsed.scheme_of(path);
  if (!c.has(packed) && (!dense || is_floating(dense->dtype))) {
    if (dense && scheme && scheme->format == "dense" && scheme->act) {
      throw Error(ErrorKind::unsupported, c.place(plain) + ": quantized activations with format dense");
    }
    return std::nullopt;
  }
  const std::string place = c.place(c.has(packed) ? packed : plain);
  if (!scheme) throw Error(ErrorKind::bad_file, place + ": quantized, but no group of quantization_config targets it");
  if (!scheme->unsupported.empty()) throw Error(ErrorKind::unsupported, place + ": compressed-tensors with " + scheme->unsupported);
  if (c.has(path + ".weight_g_idx")) throw Error(ErrorKind::unsupported, place + ": reordered groups (weight_g_idx)");
  Layer layer{{path, out, in, scheme->spec, scheme->act, at::kFloat}, c.has(packed), parsed.packing, true};
  const QSpec& spec = layer.stored.spec;
  if (layer.packed) {
    expect(c, packed, at::kInt, {out, packed_words(in, spec.bits, layer.packing)});
    expect(c, path + ".weight_shape", at::kLong, {2});
  } else {
    expect(c, plain, at::kChar, {out, in});
  }
  layer.stored.scale_dtype = check_scale(c, path + ".weight_scale", out, spec.groups(in));
  if (!spec.symmetric) check_zero(c, layer, out, spec.groups(in));
  if (scheme->act && scheme->act->is_static) layer.stored.act->scale = read_input_scale(c, path + ".input_scale");
  return layer;
}

// [out, packed_words(in)]
at::Tensor read_words(const Checkpoint& c, const Layer& layer) {
  const StoredLinear& s = layer.stored;
  const at::Tensor shape = c.tensor(s.path + ".weight_shape");
  const int64_t* dims = shape.const_data_ptr<int64_t>();
  if (dims[0] != s.out || dims[1] != s.in) {
    throw Error(ErrorKind::bad_file, c.place(s.path + ".weight_shape") + ": says " + shape_string(std::vector<int64_t>{dims[0], dims[1]}) +
                                         ", expected " + shape_string(std::vector<int64_t>{s.out, s.in}));
  }
  return c.tensor(s.path + ".weight_packed");
}

at::Tensor read_codes(const Checkpoint& c, const Layer& layer) {
  const StoredLinear& s = layer.stored;
  if (!layer.packed) {
    at::Tensor q = c.tensor(s.path + ".weight");
    if (s.spec.bits == 8) return q;
    const int64_t low = q.min().item<int64_t>(), high = q.max().item<int64_t>();
    if (low < s.spec.qmin() || high > s.spec.qmax()) {
      throw Error(ErrorKind::bad_file, c.place(s.path + ".weight") + ": codes from " + std::to_string(low) + " to " + std::to_string(high) +
                                           " in a layer of " + std::to_string(s.spec.bits) + " bits");
    }
    return q;
  }
  return unpack_codes(read_words(c, layer), s.in, s.spec.bits, layer.packing);
}

at::Tensor read_zero(const Checkpoint& c, const Layer& layer, int64_t groups) {
  const StoredLinear& s = layer.stored;
  at::Tensor z = c.tensor(s.path + ".weight_zero_point");
  if (layer.zero_packed) return unpack_codes(z.t().contiguous(), s.out, s.spec.bits, layer.packing).t().contiguous();
  return z.reshape({-1, groups}).expand({s.out, groups}).contiguous();
}

// All but the codes.
QTensor read_scales(const Checkpoint& c, const Layer& layer) {
  const StoredLinear& s = layer.stored;
  const int64_t groups = s.spec.groups(s.in);
  QTensor q{s.spec, {}, {}, {}};
  const std::string scale = s.path + ".weight_scale";
  q.scale = c.tensor(scale).reshape({-1, groups}).expand({s.out, groups}).contiguous();
  if (!at::isfinite(q.scale).all().item<bool>()) throw Error(ErrorKind::bad_file, c.place(scale) + ": infinite or NaN scales");
  if (s.spec.symmetric) {
    c.mark_used(s.path + ".weight_zero_point");  // zeros that older writers left there
  } else {
    q.zero = read_zero(c, layer, groups);
  }
  return q;
}

// The packed weight keeps such words as they are, so codes are not looked at one by one.
bool keeps_words(const Layer& layer) { return layer.packed && layer.packing == Packing::dense && layer.stored.spec.bits != 7; }

bool claims(const Json& config) { return config.get_string("quant_method", "") == "compressed-tensors"; }

std::optional<StoredLinear> describe(const Checkpoint& c, const Json& config, const std::string& path, int64_t out, int64_t in) {
  auto layer = find_layer(c, config, path, out, in);
  if (!layer) return std::nullopt;
  return layer->stored;
}

Weight read(const Checkpoint& c, const Json& config, const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) {
  auto layer = find_layer(c, config, path, out, in);
  if (!layer) return nullptr;
  act = layer->stored.act;
  if (has_input_scale(layer->stored)) c.mark_used(path + ".input_zero_point");  // zeros that older writers left there
  QTensor q = read_scales(c, *layer);
  if (keeps_words(*layer)) return make_packed(q, read_words(c, *layer), in);
  q.q = read_codes(c, *layer);
  return make_packed(q);
}

void check_writable(const StoredLinear& l) {
  check_spec(l.spec, l.in);
  if (l.spec.group > 0 && l.in % l.spec.group != 0) {
    throw Error(ErrorKind::unsupported, l.path + ": compressed-tensors cannot hold groups of " + std::to_string(l.spec.group) +
                                            " in rows of " + std::to_string(l.in));
  }
  if (l.act && l.act->bits != 8) throw Error(ErrorKind::unsupported, l.path + ": activations of other than 8 bits");
}

std::vector<TensorPlan> plan(const StoredLinear& l) {
  check_writable(l);
  const int64_t groups = l.spec.groups(l.in);
  std::vector<TensorPlan> out;
  if (stored_as_int8(l)) {
    out = {{l.path + ".weight", at::kChar, {l.out, l.in}}, {l.path + ".weight_scale", l.scale_dtype, {l.out, 1}}};
  } else {
    out = {{l.path + ".weight_packed", at::kInt, {l.out, packed_words(l.in, l.spec.bits)}},
           {l.path + ".weight_scale", l.scale_dtype, {l.out, groups}},
           {l.path + ".weight_shape", at::kLong, {2}}};
    if (!l.spec.symmetric) out.push_back({l.path + ".weight_zero_point", at::kInt, {packed_words(l.out, l.spec.bits), groups}});
  }
  if (has_input_scale(l)) out.push_back({l.path + ".input_scale", l.scale_dtype, {1}});
  return out;
}

// A zero point takes as many bits as a code; one beyond them would come back as another.
void check_zero_fits(const StoredLinear& l, const QTensor& q) {
  if (l.spec.symmetric || q.zero.numel() == 0) return;
  const int64_t low = q.zero.min().item<int64_t>(), high = q.zero.max().item<int64_t>();
  if (low >= l.spec.qmin() && high <= l.spec.qmax()) return;
  throw Error(ErrorKind::unsupported, l.path + ": zero points from " + std::to_string(low) + " to " + std::to_string(high) + " do not fit " +
                                          std::to_string(l.spec.bits) + " bits");
}

NamedTensors encode(const StoredLinear& l, const QTensor& q) {
  check_writable(l);
  check_zero_fits(l, q);
  check(q.spec == l.spec && q.rows() == l.out && q.columns() == l.in, "codes of another layer: " + l.path);
  const at::Tensor scale = q.scale.to(l.scale_dtype);
  NamedTensors out;
  if (stored_as_int8(l)) {
    out = {{l.path + ".weight", q.q}, {l.path + ".weight_scale", scale}};
  } else {
    out = {{l.path + ".weight_packed", pack_codes(q.q, l.spec.bits)},
           {l.path + ".weight_scale", scale},
           {l.path + ".weight_shape", at::tensor({l.out, l.in}, at::kLong)}};
    if (!l.spec.symmetric) out.emplace_back(l.path + ".weight_zero_point", pack_codes(q.zero.t().contiguous(), l.spec.bits).t().contiguous());
  }
  if (has_input_scale(l)) {
    const at::Tensor input = at::tensor({l.act->scale}, at::kFloat).to(l.scale_dtype);
    check(l.act->scale > 0 && input.item<float>() == l.act->scale, "a static scale that its dtype cannot hold: " + l.path);
    out.emplace_back(l.path + ".input_scale", input);
  }
  return out;
}

}  // namespace

extern const Format kFormat_compressed_tensors;
const Format kFormat_compressed_tensors = {"compressed-tensors", claims, describe, read, plan, encode, make_ct_config};

}  // namespace statera
