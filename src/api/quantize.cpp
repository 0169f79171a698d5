// Options to settings, the model as handles on mapped weights, and the call of the pipeline.
#include "api/quantize.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "api/guard.h"
#include "api/recipe.h"
#include "api/version.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/strings.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/own_head.h"
#include "nn/buffers.h"
#include "quant/calib/parity.h"
#include "quant/calib/sample.h"
#include "quant/pipeline.h"
#include "quant/recipes/targets.h"
#include "quant/scales_file.h"

namespace statera {
namespace {

std::string one_of(const std::string& value, const char* flag, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return value;
  throw Error(ErrorKind::usage, std::string(flag) + " must be " + join(known, " or ") + ", is \"" + value + "\"");
}

void set_methods(const QuantizeOptions& o, QuantizeSettings& s) {
  recipe_methods(o.method);
  s.method = o.method;
  if (!(o.smooth_alpha >= 0 && o.smooth_alpha <= 1)) throw Error(ErrorKind::usage, "--smooth-alpha must be between 0 and 1");
  s.smooth_alpha = o.smooth_alpha;
  if (!(o.gptq_damp >= 0 && o.gptq_damp <= 1)) throw Error(ErrorKind::usage, "--gptq-damp must be between 0 and 1");
  s.awq = {o.awq_clip, o.awq_tie_heads};
  s.gptq = {o.gptq_act_order, o.gptq_damp, o.gptq_clip};
  s.mbq.reweight = o.mbq_reweight;
  s.mbq.squared = one_of(o.mbq_loss, "--mbq-loss", {"mae", "mse"}) == "mse";
  s.mbq.own_mean = one_of(o.mbq_norm, "--mbq-norm", {"common", "own"}) == "own";
  s.mbq.median_floor = o.mbq_floor;
  s.mbq.tie_heads = o.mbq_tie_heads;
  s.mbq.distort = o.mbq_distort;
}

QuantizeSettings settings_of(const QuantizeOptions& o) {
  if (o.sym && o.asym) throw Error(ErrorKind::usage, "--sym and --asym exclude each other");
  if (o.a_bits != 8 && o.a_bits != 16) throw Error(ErrorKind::usage, "--a-bits must be 16 (floating) or 8, is " + std::to_string(o.a_bits));
  if (o.w_bits < 2 || o.w_bits > 8) throw Error(ErrorKind::usage, "--w-bits must be between 2 and 8, is " + std::to_string(o.w_bits));
  if (o.seed < 0) throw Error(ErrorKind::usage, "--seed must not be negative");
  QuantizeSettings s;
  set_methods(o, s);
  s.plan.weights = {static_cast<int>(o.w_bits), o.w_group.value_or(o.a_bits == 8 ? -1 : 128), !o.asym};
  s.plan.weights.own_range = parse_parity(o.parity).own_ranges;
  if (o.a_static && o.a_bits != 8) throw Error(ErrorKind::usage, "--a-static is about quantized activations: give --a-bits 8");
  if (o.a_bits == 8) s.plan.act = ActQuant{.bits = 8, .is_static = o.a_static};
  s.plan.select = {o.quantize_vision, o.quantize_projector, o.quantize_head, o.ignore, {}};
  if (o.head_bits) {
    s.plan.select.head = true;
    s.plan.select.overrides.push_back(with_context("--head-bits", [&] { return parse_override("bits=" + std::to_string(*o.head_bits) + ":(^|\\.)lm_head$"); }));
  }
  for (const std::string& text : o.override) s.plan.select.overrides.push_back(parse_override(text));
  s.target_bits = o.target_bits;
  for (const std::string& target : o.target) s.targets.push_back(one_of(target, "--target", known_targets()));
  s.plan.format = o.format;
  s.plan.max_shard_bytes = parse_bytes(o.max_shard, "--max-shard");
  if (s.plan.max_shard_bytes == 0) throw Error(ErrorKind::usage, "--max-shard must be larger than 0");
  s.seed = static_cast<uint64_t>(o.seed);
  s.max_ram = o.max_ram.empty() ? 0 : parse_bytes(o.max_ram, "--max-ram");
  if (o.propagate != "quantized" && o.propagate != "original")
    throw Error(ErrorKind::usage, "--propagate must be quantized or original, is \"" + o.propagate + "\"");
  s.propagate_original = o.propagate == "original";
  if (o.search_tokens < 0) throw Error(ErrorKind::usage, "--search-tokens must not be negative");
  s.search_tokens = o.search_tokens;
  s.restart = o.restart;
  s.overwrite = o.overwrite;
  s.version = kVersion;
  return s;
}

CalibOptions calibration_of(const QuantizeOptions& o) {
  CalibOptions out{o.data, o.image_folder, o.n_samples, o.max_seq_len, static_cast<uint64_t>(o.seed)};
  out.few_shot = o.few_shot;
  out.interleave = o.interleave;
  out.parity = o.parity;
  return out;
}

}  // namespace

uint64_t parse_bytes(std::string_view text, std::string_view what) {
  const std::string trimmed(trim(text));
  char* end = nullptr;
  const double number = std::strtod(trimmed.c_str(), &end);
  std::string unit(trim(end));
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  double factor = 0;
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, double>>{{"", 1},
                                                                                         {"b", 1},
                                                                                         {"kb", 1e3},
                                                                                         {"mb", 1e6},
                                                                                         {"gb", 1e9},
                                                                                         {"tb", 1e12},
                                                                                         {"kib", 0x1p10},
                                                                                         {"mib", 0x1p20},
                                                                                         {"gib", 0x1p30},
                                                                                         {"tib", 0x1p40}}) {
    if (unit == name) factor = value;
  }
  const double bytes = number * factor;
  if (end == trimmed.c_str() || factor == 0 || !(bytes >= 0) || bytes > 0x1p62) {
    throw Error(ErrorKind::usage, std::string(what) + ": \"" + trimmed + "\" is no size (5GB, 512MiB, 1000000)");
  }
  return static_cast<uint64_t>(std::llround(bytes));
}

QuantizeReport quantize(const QuantizeOptions& given, const ProgressSink& progress, const std::atomic<bool>* cancel) {
  return guarded([&] {
    return_freed_memory();
    QuantizeOptions options = given;
    std::vector<std::string> notes = apply_recipe(options);
    QuantizeSettings settings = settings_of(options);
    std::optional<ScaleSet> scales;
    if (!options.scales.empty()) settings.scales = &scales.emplace(read_scales(options.scales));
    settings.notes = std::move(notes);
    const bool calibrated = needs_data(settings);
    const CalibOptions wanted = calibration_of(options);
    if (calibrated) check_calibration(wanted);
    if (!calibrated && !(wanted.data.empty() && wanted.interleave.empty() && !parse_parity(wanted.parity).reads_data() && !wanted.few_shot))
      throw Error(ErrorKind::usage, "method " + settings.method + " looks at no data: leave out --data, --few-shot, --interleave and --parity of data");
    Checkpoint checkpoint = Checkpoint::open(options.model);
    const ModelType& type = with_context(options.model, [&]() -> const ModelType& { return model_type(checkpoint.config()); });
    if (settings.plan.select.head) checkpoint = with_own_head(checkpoint, type);
    CheckpointSource source(checkpoint, type);
    const auto model = type.make(checkpoint.config(), source);
    std::optional<CalibData> data;
    at::set_num_threads(1);  // our own pool runs the heavy work, in pieces that do not depend on the number of threads
    if (calibrated) {
      check_settings(settings);
      data = read_calibration(wanted, read_prompt_parts(checkpoint.directory(), *model));
      settings.data = &*data;
    }
    const KeptBuffers kept(calibrated ? kKeptBuffers : 0);  // what the memory plan counts
    if (options.plan) return plan_quantization(*model, source, settings, options.out);
    return run_quantization(*model, source, settings, options.out, {progress, cancel, {}});
  });
}

}  // namespace statera
