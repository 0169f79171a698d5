// See bench_model.h.
#include "api/bench_model.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "api/presets.h"
#include "api/random_model.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/rng.h"
#include "base/strings.h"
#include "ckpt/own_head.h"
#include "nn/compute.h"
#include "quant/report.h"

namespace statera {
namespace {

constexpr float kStaticScale = 0.05f;  // inputs of random layers are about 1
constexpr int64_t kTextBefore = 4, kTextAfter = 22;  // tokens around a picture; with its two marks 28

bool rounds_head(const BenchOptions& o) { return o.quantize_head || o.head_bits; }

std::optional<Rounding> rounding_of(const BenchOptions& o, const ModelType& type, const Json& config) {
  if (!o.w_bits) return std::nullopt;
  const QSpec spec{static_cast<int>(*o.w_bits), o.w_group.value_or(o.a_bits == 8 ? -1 : 128), !o.asym};
  std::optional<ActQuant> act;
  if (o.a_bits == 8) act = o.a_static ? ActQuant{.bits = 8, .is_static = true, .scale = kStaticScale} : ActQuant{8};
  return plan_rounding(type, config, spec, act, {o.quantize_vision, o.quantize_projector, rounds_head(o), {}, {}}, o.head_bits);
}

std::string precision_of(const BenchOptions& o) {
  const std::string compute = "; compute " + o.compute + (o.kv_cache == "auto" ? "" : "; keys and values in " + o.kv_cache) +
                              (o.vision_attention == "auto" ? "" : "; attention of patches " + o.vision_attention);
  if (!o.w_bits) return (o.model ? "weights as stored" : "weights as the config says") + compute;
  const int64_t group = o.w_group.value_or(o.a_bits == 8 ? -1 : 128);
  const std::string head = rounds_head(o) ? fmt::format(", the head with {} bits", o.head_bits.value_or(*o.w_bits)) : "";
  return fmt::format("{}-bit weights in {}{}{}", *o.w_bits, group > 0 ? fmt::format("groups of {}", group) : "rows", head,
                     spoken_activations(o.a_bits, o.a_static)) + compute;
}

// Refused before anything is drawn. Rounded weights are counted with a scale of 2 bytes a group.
void require_memory(const ModelType& type, const Json& config, const std::optional<Rounding>& rounding, at::ScalarType dtype) {
  ShapesOnly shapes;
  const std::unique_ptr<Model> model = type.make(config, shapes);
  double bytes = 0;
  const double width = dtype == at::kFloat ? 4 : 2;
  for (const auto& [path, site] : model->params.linears) {
    const bool rounded = rounding && rounding->layers.contains(path);
    bytes += static_cast<double>(site->out) * static_cast<double>(site->in) * (rounded ? rounding->layers.at(path).bits / 8.0 : width);
  }
  for (const auto& [path, site] : model->params.tensors) {
    double n = width;
    for (int64_t d : site->shape) n *= static_cast<double>(d);
    bytes += n;
  }
  const auto memory = static_cast<double>(memory_of_machine());
  if (memory > 0 && bytes > 0.9 * memory)
    throw Error(ErrorKind::memory, fmt::format("--preset: the weights take {} of the {} that this machine has; --w-bits makes them smaller", human_bytes(bytes), human_bytes(memory)));
}

Loaded draw_model(const BenchOptions& o) {
  const std::string& name = *o.preset;
  const Json stated = config_or_preset(name);
  const Json config = rounds_head(o) ? untied(stated) : stated;
  const ModelType& type = with_context(name, [&]() -> const ModelType& { return model_type(config); });
  const at::ScalarType activations = parse_dtype(o.dtype), stored = with_context(name, [&] { return stated_dtype(config).value_or(at::kBFloat16); });
  prepare_inference();
  const std::optional<Rounding> rounding = rounding_of(o, type, config);
  require_memory(type, config, rounding, stored);
  const auto start = std::chrono::steady_clock::now();
  RandomSource random(static_cast<uint64_t>(o.seed), stored);
  std::optional<RoundingSource> rounded;
  if (rounding) rounded.emplace(random, *rounding);
  Loaded out;
  out.model = type.make(config, rounded ? static_cast<WeightSource&>(*rounded) : random);
  out.model->dtype = activations;
  with_context(name, [&] {
    set_compute(out.model->params, parse_compute(o.compute));
    set_vision_attention(out.model->params, parse_vision_attention(o.vision_attention), activations);
  });
  out.made_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

// "448x448" -> width, height.
std::pair<int64_t, int64_t> parse_size(const std::string& text) {
  const std::vector<std::string> parts = split(text, 'x');
  auto number = [](const std::string& s) -> int64_t {
    const bool digits = !s.empty() && s.size() <= 5 && s.find_first_not_of("0123456789") == s.npos;
    return digits ? std::stoll(s) : 0;
  };
  if (parts.size() == 2 && number(parts[0]) > 0 && number(parts[1]) > 0) return {number(parts[0]), number(parts[1])};
  throw Error(ErrorKind::usage, "--image must be WIDTHxHEIGHT in pixels, or none, is \"" + text + "\"");
}

int64_t to_multiple(int64_t pixels, int64_t of) { return std::max<int64_t>(1, std::llround(static_cast<double>(pixels) / static_cast<double>(of))) * of; }

at::Tensor random_pixels(int64_t height, int64_t width, uint64_t seed) {
  at::Tensor out = at::empty({height, width, 3}, at::kByte);
  uint8_t* to = out.mutable_data_ptr<uint8_t>();
  const Rng rng(seed, 1);
  for (int64_t i = 0; i < out.numel(); ++i) to[i] = static_cast<uint8_t>(rng.at(static_cast<uint64_t>(i)));
  return out;
}

}  // namespace

BenchModel open_bench_model(const BenchOptions& o) {
  BenchModel out;
  out.random = o.preset.has_value();
  out.name = out.random ? *o.preset : *o.model;
  out.precision = precision_of(o);
  if (out.random) {
    out.loaded = draw_model(o);
    return out;
  }
  LoadOptions load;
  load.dtype = o.dtype;
  load.compute = o.compute;
  load.vision_attention = o.vision_attention;
  load.own_head = rounds_head(o);
  if (!o.w_bits) {
    out.loaded = open_model(*o.model, load);
    return out;
  }
  out.loaded = open_model(*o.model, load, [&](WeightSource& checkpoint, const ModelType& type, const Json& config) {
    return std::make_unique<RoundingSource>(checkpoint, *rounding_of(o, type, config));
  });
  return out;
}

std::string BenchPicture::size() const { return fmt::format("{}x{}", pixels.size(1), pixels.size(0)); }

ModelInputs BenchPicture::inputs() const {
  Patches made = patchify(pixels, layout, {.do_rescale = true, .do_normalize = true, .rescale_factor = 1.0 / 255, .mean = {0.5, 0.5, 0.5}, .std = {0.5, 0.5, 0.5}});
  ModelInputs in;
  in.input_ids = at::tensor(ids, at::TensorOptions(at::kLong));
  in.bounds = one_sequence(in.input_ids.size(0));
  in.pixel_values = std::move(made.values);
  in.image_grid_thw = {made.grid_thw};
  return in;
}

BenchInputs::BenchInputs(const Model& model, const BenchOptions& options) : model_(model), options_(options) {
  const at::Tensor all = at::arange(model.limits().vocab_size, at::kLong), kinds = model.token_kinds(all).contiguous();
  for (int64_t i = 0; i < all.size(0); ++i) {
    if (kinds.const_data_ptr<int8_t>()[i] == kText) words_.push_back(i);
  }
  if (!model.vision() && !options.image.empty() && options.image != "none") throw Error(ErrorKind::usage, "--image: this model reads text only");
  if (!model.vision() || options.image == "none") return;
  const auto [width, height] = parse_size(options.image.empty() ? "448x448" : options.image);
  const Json& vision = model.config.at("vision_config", "config.json");
  BenchPicture p;
  p.layout.patch_size = vision.at("patch_size", "config.json: vision_config").as_int("config.json: vision_config.patch_size");
  p.layout.temporal_patch_size = vision.get_int("temporal_patch_size", p.layout.temporal_patch_size);
  p.layout.merge_size = vision.get_int("spatial_merge_size", p.layout.merge_size);
  p.pixels = random_pixels(to_multiple(height, p.layout.factor()), to_multiple(width, p.layout.factor()), static_cast<uint64_t>(options.seed));
  p.patches = p.pixels.size(0) / p.layout.patch_size * (p.pixels.size(1) / p.layout.patch_size);
  p.tokens = p.patches / (p.layout.merge_size * p.layout.merge_size);
  auto add = [&](int64_t count, int64_t id) { p.ids.insert(p.ids.end(), static_cast<size_t>(count), id); };
  auto token = [&](const char* name) { return model.config.at(name, "config.json").as_int(std::string("config.json: ") + name); };
  p.ids = draw(kTextBefore, 3);
  add(1, token("vision_start_token_id"));
  add(p.tokens, token("image_token_id"));
  add(1, token("vision_end_token_id"));
  for (int64_t id : draw(kTextAfter, 4)) p.ids.push_back(id);
  picture_ = std::move(p);
}

std::vector<int64_t> BenchInputs::draw(int64_t count, uint64_t stream) const {
  Rng rng(static_cast<uint64_t>(options_.seed), stream);
  std::vector<int64_t> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(words_[rng.next() % words_.size()]);
  return out;
}

ModelInputs BenchInputs::text() const {
  ModelInputs in;
  in.input_ids = at::tensor(draw(options_.pp, 2), at::TensorOptions(at::kLong));
  in.bounds = one_sequence(in.input_ids.size(0));
  in.position_ids = model_.positions(in).first;
  return in;
}

}  // namespace statera
