// quantize: a quantized checkpoint from a floating one, streamed in bounded memory, resumable; or only the plan of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "quant/report.h"

namespace statera {

struct QuantizeOptions {
  std::string model, out;
  std::string recipe, method = "rtn", format = "compressed-tensors";
  int64_t w_bits = 4;
  std::optional<int64_t> w_group;
  bool sym = false, asym = false;
  int64_t a_bits = 16;
  bool a_static = false;
  std::vector<std::string> ignore, override, target;
  std::optional<double> target_bits;
  bool quantize_vision = false, quantize_projector = false, quantize_head = false;
  std::optional<int64_t> head_bits;
  std::string max_shard = "5GB", max_ram;
  int64_t seed = 0;
  std::vector<std::string> data;
  std::string image_folder, interleave, propagate = "quantized";
  bool few_shot = false;
  std::vector<std::string> parity;
  double smooth_alpha = 0.5;
  std::string scales;
  bool awq_clip = false, awq_tie_heads = false, gptq_act_order = false, gptq_clip = false;
  double gptq_damp = 0.01;
  bool mbq_reweight = true, mbq_floor = true, mbq_tie_heads = false, mbq_distort = false;
  std::string mbq_loss = "mae", mbq_norm = "common";
  int64_t n_samples = 128, max_seq_len = 2048, search_tokens = 4096;
  bool plan = false, restart = false, overwrite = false;
  std::vector<std::string> given;  // names of options that count even though a recipe file says otherwise; those that differ from their
                                   // default do anyway. The command line names all its flags here
  static constexpr std::string_view positional[] = {"model"};
  static constexpr std::string_view required[] = {"out"};
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder");
    v("out", out, "folder to write; appears when complete");
    v("recipe", recipe, "YAML file with steps, precision, data and exceptions (docs/recipes.md), or one published with MBQ; FILE#2: its "
                        "second job. Flags count before it");
    v("method", method, "what is done to weights before and when they are rounded; several joined by +, e.g. awq+gptq. rtn comes last "
                        "where none of them rounds");
    v("w_bits", w_bits, "bits of a weight, 2 to 8");
    v("w_group", w_group, "input channels that share a scale, -1: a whole row; 128 when not given, -1 with 8-bit activations");
    v("sym", sym, "symmetric weights: no zero points (this is the default)");
    v("asym", asym, "asymmetric weights: a zero point per group");
    v("a_bits", a_bits, "16: floating activations; 8: int8, scaled per token as they come");
    v("a_static", a_static, "8-bit activations have one scale per layer, found on the calibration samples, in place of one per token");
    v("ignore", ignore, "regular expression searched in module names of the files; what it finds stays floating (repeatable)");
    v("override", override, "exceptions, bits=8,group=64,asym:PATTERN or skip:PATTERN, for layers that the regular expression finds "
                            "(repeatable; the last one that says something counts)");
    v("target_bits", target_bits, "bits per quantized weight, scales included: each layer gets as many as its measured sensitivity is worth");
    v("target", target, "refuse, before any work, what this could not load: vllm, transformers or llama.cpp (repeatable)");
    v("quantize_vision", quantize_vision, "the vision tower's layers, too");
    v("quantize_projector", quantize_projector, "the projector's layers, too");
    v("quantize_head", quantize_head, "the output head, too; one that is tied to the embedding becomes a layer of its own");
    v("head_bits", head_bits, "bits of the output head's weights, 2 to 8; means --quantize-head");
    v("format", format, "how the checkpoint is laid out");
    v("max_shard", max_shard, "size of a weight file, e.g. 5GB");
    v("max_ram", max_ram, "refuse when more memory than this would be needed, e.g. 8GB, and name the smallest that holds; what is written does not depend on it");
    v("seed", seed, "of methods that draw random numbers, and of the order in which samples are drawn");
    v("data", data, "calibration file, PATH or PATH:FIELD (.parquet; .txt, .jsonl, .json, also with .zst; repeatable); a small bundled set when not given");
    v("image_folder", image_folder, "where relative picture paths of calibration files start; the file's folder when not given");
    v("few_shot", few_shot, "two conversations a calibration sequence, one behind the other");
    v("interleave", interleave, "text file, PATH or PATH:FIELD: two conversations a calibration sequence with 512 tokens of text between them");
    v("parity", parity, "do as MBQ's code does, names with commas between: mbq-data for reading --data (docs/calibration.md), "
                        "own-ranges for rounding asymmetric weights (docs/methods/rtn.md)");
    v("n_samples", n_samples, "calibration sequences; conversations with --few-shot or --interleave");
    v("max_seq_len", max_seq_len, "longest calibration sequence, tokens");
    v("search_tokens", search_tokens, "calibration rows that a searching method keeps per layer, 0: all");
    v("smooth_alpha", smooth_alpha, "smoothquant: 0 leaves activations as they are, 1 makes their channels even");
    v("awq_clip", awq_clip, "awq: search each group's range for the least error of the layer's output, after the scales");
    v("awq_tie_heads", awq_tie_heads, "awq: scales between v and o under grouped-query attention, too, one for all query heads that share a value head");
    v("gptq_act_order", gptq_act_order, "gptq: round columns in order of falling activation energy");
    v("gptq_damp", gptq_damp, "gptq: added to the diagonal of the input's second moments, a fraction of its mean");
    v("gptq_clip", gptq_clip, "gptq: search each group's range for the least error");
    v("mbq_reweight", mbq_reweight, "mbq: vision tokens count as the loss is sensitive to them, tokens outside answers not at all");
    v("mbq_loss", mbq_loss, "mbq: mae or mse");
    v("mbq_norm", mbq_norm, "mbq: errors of vision and answer tokens divided by their common count, or each by its own: common or own");
    v("mbq_floor", mbq_floor, "mbq: no block counts vision less than the median block");
    v("mbq_tie_heads", mbq_tie_heads, "mbq: as --awq-tie-heads");
    v("mbq_distort", mbq_distort, "mbq: try scales on what the quantized blocks before give, against what the model gave before");
    v("propagate", propagate, "what the next block is calibrated with: quantized or original results of the one before");
    v("scales", scales, "scales.safetensors of an earlier run with the same method and bits: folded in place of searching, without data");
    v("plan", plan, "print what would be written, to the byte, and write nothing");
    v("restart", restart, "drop unfinished work instead of going on with it");
    v("overwrite", overwrite, "replace an existing checkpoint folder");
  }
};

// Work that was interrupted (killed, disk full, cancelled) is gone on with by the same call. Errors: usage for options that do not fit
// each other or the model, unsupported for a source that is quantized already, bad_file for a weight that is NaN or infinite (named),
// io for a full disk, interrupted when *cancel became true.
QuantizeReport quantize(const QuantizeOptions& options, const ProgressSink& progress = {}, const std::atomic<bool>* cancel = nullptr);

// "5GB", "512MiB", "1000000": bytes. Error(usage) naming `what`.
uint64_t parse_bytes(std::string_view text, std::string_view what);

}  // namespace statera
