// See finetune_options.h.
#include "api/finetune_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/fields.h"
#include "base/strings.h"
#include "kernels/cpu.h"
#include "nn/mixed.h"
#include "train/schedule.h"
#include "train/state_codes.h"

namespace statera {
namespace {

// Options that do not change what is computed.
constexpr std::string_view kFree[] = {"out",       "config",    "workers",  "check_samples", "check_only", "eval_data", "eval_every",
                                      "eval_samples", "log_every", "save_every", "keep",     "restart",    "overwrite", "lanes", "cache",
                                      "zero",      "rank_timeout", "report_to", "tensorboard"};
// Those that processes of one run may have each its own.
constexpr std::string_view kOwn[] = {"workers", "cache", "rank_timeout"};

void require(bool good, const std::string& what) {
  if (!good) throw Error(ErrorKind::usage, what);
}

}  // namespace

FinetuneOptions with_config(const FinetuneOptions& given) {
  if (given.config.empty()) return given;
  Json config = Json::object();
  const Json file = Json::read_file(given.config);
  for (const auto& [key, value] : file.as_object(given.config)) {
    std::string name = key;
    for (const auto& [alias, own] : FinetuneOptions::aliases) {
      if (key == alias) name = own;
    }
    if (config.has(name)) throw Error(ErrorKind::usage, given.config + ": \"" + key + "\" is given twice under two names");
    config.set(name, value);
  }
  for (const std::string& name : given.given) config.erase(name);
  FinetuneOptions out = given;
  fields_from_json(config, out, given.config);
  return out;
}

void check_finetune(const FinetuneOptions& o) {
  require(!o.data.empty() || !o.mix.empty(), "nothing to train on: give --data or --mix");
  require(o.batch >= 1 && o.accumulate >= 1, "--batch and --accumulate must be at least 1");
  require(o.epochs > 0 || o.max_steps > 0, "--epochs must be larger than 0");
  require(o.max_steps >= 0 && o.max_len >= 2, "--max-steps must not be negative, --max-len must be at least 2");
  require(o.seed >= 0 && o.lanes >= 0 && o.lanes <= 64, "--seed must not be negative, --lanes must be between 0 and 64");
  require(o.workers >= 0 && o.workers <= 64, "--workers must be between 0 and 64");
  require(o.lr >= 0 && o.weight_decay >= 0 && o.eps > 0 && o.max_grad_norm >= 0, "--lr, --weight-decay, --eps and --max-grad-norm must not be negative");
  require(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "--beta1 and --beta2 must be in [0, 1)");
  require(o.warmup_ratio >= 0 && o.warmup_ratio <= 1 && o.warmup_steps.value_or(0) >= 0, "--warmup-ratio must be between 0 and 1");
  require(o.lora_r >= 0 && o.lora_alpha >= 0, "--lora-r and --lora-alpha must not be negative");
  require(o.lora_r > 0 || (o.lora_target.empty() && o.lora_alpha == 0), "--lora-target and --lora-alpha go with --lora-r");
  require(o.lora_dropout >= 0 && o.lora_dropout < 1, "--lora-dropout must be in [0, 1)");
  require(o.lora_r > 0 || o.lora_dropout == 0, "--lora-dropout goes with --lora-r");
  require(o.router_aux_loss_coef >= 0 && o.router_z_loss_coef >= 0, "--router-aux-loss-coef and --router-z-loss-coef must not be negative");
  require(o.report_to.empty() || o.report_to == "none" || o.report_to == "tensorboard", "--report-to must be tensorboard or none, is \"" + o.report_to + "\"");
  parse_state_bits(o.optim_states);
  require(o.on_bad == "refuse" || o.on_bad == "skip", "--on-bad must be refuse or skip, is \"" + o.on_bad + "\"");
  require(o.dtype == "fp32" || o.dtype == "bf16", "--dtype must be fp32 or bf16 for training, is \"" + o.dtype + "\"");
  require(o.matmul_precision == "highest" || o.matmul_precision == "medium", "--matmul-precision must be highest or medium, is \"" + o.matmul_precision + "\"");
  require(o.matmul_precision == "highest" || o.dtype == "fp32", "--matmul-precision medium goes with --dtype fp32; --dtype bf16 multiplies bf16 anyway");
  if (o.matmul_precision == "medium" && !has_bf16_products())
    throw Error(ErrorKind::unsupported, "--matmul-precision medium needs bf16 products (AVX512_BF16), which " + kernels::cpu_description() + " does not have or STATERA_ISA leaves out");
  require(o.eval_every == 0 || !o.eval_data.empty(), "--eval-every goes with --eval-data");
  require(o.eval_every >= 0 && o.eval_samples >= 0 && o.log_every >= 0 && o.save_every >= 0 && o.keep >= 0,
          "--eval-every, --eval-samples, --log-every, --save-every and --keep must not be negative");
  require(o.zero >= 0 && o.zero <= 3, "--zero must be 0, 1, 2 or 3, is " + std::to_string(o.zero));
  require(o.zero < 2 || o.checkpointing, "--zero 2 and 3 take gradients block by block: they go with --checkpointing");
  require(o.zero < 2 || o.lanes <= 1, "--zero 2 and 3 work in one lane a process");
  require(o.rank_timeout >= 1 && o.rank_timeout <= 1'000'000, "--rank-timeout must be between 1 and 1000000 seconds");
  check_schedule(o.schedule);
}

std::string first_difference(const Json& before, const Json& now) {
  for (const auto& [key, value] : now.as_object()) {
    const Json* old = before.find(key);
    if (!old || !(*old == value)) return key + " was " + (old ? old->dump() : "absent") + ", is " + value.dump();
  }
  return "an option is gone";
}

Json shared_record(const FinetuneOptions& options, const MediaFlags& media) {
  Json record = fields_to_json(options);
  for (std::string_view name : kOwn) record.erase(name);
  const Json how = fields_to_json(media);
  for (const auto& [name, value] : how.as_object()) record.set(name, value);
  return record;
}

Json run_record(const FinetuneOptions& options, const MediaFlags& media, uint64_t items, const std::string& dtype) {
  Json record = shared_record(options, media);
  for (std::string_view name : kFree) record.erase(name);
  record.set("items_per_epoch", items);
  record.set("dtype", dtype);
  return record;
}

std::string data_text(const Json& data) {
  const int64_t usable = data.at("usable").as_int(), bad = data.at("bad").as_int();
  std::string out = fmt::format("{} of {} items can be trained on", usable, usable + bad);
  for (const auto& [kind, fault] : data.at("faults").as_object()) {
    out += fmt::format("\n  {}: {}", kind, fault.at("count").as_int());
    for (const Json& example : fault.at("examples").as_array()) out += "\n    " + example.as_string();
  }
  return out;
}

}  // namespace statera
