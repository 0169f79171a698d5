// bench: how fast a model runs here, beside what the machine could do at best: prefill, decode, vision, first token, load, memory, energy.
// One sequence at a time. Weights come from a checkpoint, or are drawn in memory at the shapes of a released model.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/bench_limits.h"
#include "api/bench_profile.h"
#include "base/json.h"
#include "base/progress.h"

namespace statera {

struct BenchOptions {
  std::optional<std::string> model, preset;
  std::optional<int64_t> w_bits, w_group, head_bits;
  bool asym = false, a_static = false, quantize_vision = false, quantize_projector = false, quantize_head = false;
  int64_t a_bits = 16, pp = 512, tg = 64, repeats = 5, seed = 0;
  std::string dtype = "fp32", compute = "auto", vision_attention = "auto", kv_cache = "auto", image, read_buffer, trace;
  bool profile = false;
  static constexpr std::string_view positional[] = {"model"};
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder; or --preset");
    v("preset", preset, "random weights in memory at the shapes of a preset of `statera init`, or of a config.json; nothing is written and no tokenizer needed");
    v("w_bits", w_bits, "round weights to so many bits as they are loaded, 2 to 8; as they are stored when not given");
    v("w_group", w_group, "input channels that share a scale, -1: a whole row; 128 when not given, -1 with 8-bit activations");
    v("asym", asym, "asymmetric weights: a zero point per group");
    v("a_bits", a_bits, "16: floating activations; 8: int8, scaled per token as they come");
    v("a_static", a_static, "8-bit activations have a scale given beforehand, which speed does not depend on");
    v("quantize_vision", quantize_vision, "the vision tower's layers, too");
    v("quantize_projector", quantize_projector, "the projector's layers, too");
    v("quantize_head", quantize_head, "the output head, too; one that is tied to the embedding becomes a layer of its own");
    v("head_bits", head_bits, "bits of the output head's weights, 2 to 8; means --quantize-head");
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; weights keep their stored precision");
    v("compute", compute, "how low-bit weights meet activations: exact, int8, or auto (int8 where it can be), as in chat");
    v("vision_attention", vision_attention, "how patches of the picture attend to each other: exact, int8 (rounded to 8 bits, both products in integers), or auto: int8 where layers of the tower compute in integers, too");
    v("kv_cache", kv_cache, "what keys and values are kept in: auto (as activations are), fp16 or int8, as in chat");
    v("pp", pp, "tokens of the prompt");
    v("tg", tg, "tokens decoded after it");
    v("image", image, "WIDTHxHEIGHT of the picture that models with a vision tower see, rounded to whole patches; 448x448 when not given, none: no picture");
    v("repeats", repeats, "measured runs, after one that warms up");
    v("seed", seed, "of random weights, tokens and pixels");
    v("profile", profile, "a table of what each operator took, did and could have taken at best");
    v("trace", trace, "file for a trace of one more run, as chrome://tracing and Perfetto read it");
    v("read_buffer", read_buffer, "memory read to measure the bandwidth, e.g. 1GB; four times the last cache when not given");
  }
};

// One kind of run, repeated.
struct BenchPhase {
  int64_t tokens = 0;         // of one run; patches for vision
  Summary seconds;            // of one run
  Summary rate;               // tokens (patches) a second
  profile::Work work;         // of one run
  double limit_seconds = 0;   // what that work would take at the machine's limit, see docs/bench.md
  std::optional<double> joules;  // of the processors in one run, median
  double share_of_limit() const { return seconds.median > 0 ? limit_seconds / seconds.median : 0; }
  Json to_json(const MachineLimits& limits) const;
};

struct BenchReport {
  std::string model, precision, activations, cpu, image;  // image: the size in use, empty without
  bool random = false;
  int64_t parameters = 0, weight_bytes = 0, repeats = 0, image_tokens = 0;
  // Opening the files and making the model, which packs quantized weights; for random weights drawing and packing them is the second.
  double mapped_seconds = 0, packed_seconds = 0;
  uint64_t loaded_rss = 0, peak_rss = 0;  // bytes; the peak is of loading and running, limits not yet measured
  BenchPhase prefill, decode;
  std::optional<BenchPhase> vision, first_token;  // first_token: pixels to patches, tower, prompt, first choice; tokens: of its prompt
  double outside_operators = 0, outside_loops = 0;  // shares of a decode step
  MachineLimits limits;
  std::vector<StageProfile> stages;  // of one more run, with clocks around operators
  bool profile = false;              // whether they are shown
  std::string trace;
  double seconds = 0;
  Json to_json() const;
  std::string to_text() const;
};

// Errors: usage for options that do not fit each other or the model, not_found, bad_file and unsupported as opening a checkpoint says them,
// memory when the model does not fit, interrupted when *cancel became true.
BenchReport bench(const BenchOptions& options, const ProgressSink& progress = {}, const std::atomic<bool>* cancel = nullptr);

}  // namespace statera
