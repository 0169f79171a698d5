// finetune: trains a checkpoint on conversations, whole or by parts, or adapters on it; writes checkpoints that transformers loads and a
// log, and goes on where a killed run stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/media_flags.h"
#include "base/json.h"
#include "base/progress.h"

namespace statera {

struct FinetuneOptions {
  std::string model, out, config;
  std::vector<std::string> data, eval_data;
  std::string mix;
  double epochs = 1;
  int64_t max_steps = 0, batch = 8, accumulate = 1, max_len = 2048;
  double lr = 1e-5;
  std::optional<double> vision_lr, merger_lr, embeddings_lr;
  bool train_vision = true, train_merger = true, train_language = true, train_embeddings = true;
  std::string schedule = "cosine";
  double warmup_ratio = 0.03;
  std::optional<int64_t> warmup_steps;
  double weight_decay = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, max_grad_norm = 1;
  int64_t lora_r = 0;
  double lora_alpha = 0, lora_dropout = 0;
  std::vector<std::string> lora_target;
  double router_aux_loss_coef = 0, router_z_loss_coef = 0;
  std::string dtype = "fp32", matmul_precision = "highest", save_dtype, optim_states = "fp32";
  bool checkpointing = false, shuffle = true;
  int64_t seed = 0, lanes = 0, workers = 1, zero = 0, rank_timeout = 1800;
  std::string on_bad = "refuse", cache = "512MB";
  bool check_samples = false, check_only = false;
  int64_t eval_every = 0, eval_samples = 64, log_every = 1, save_every = 500, keep = 2;
  std::string report_to, tensorboard;
  bool restart = false, overwrite = false;
  std::vector<std::string> given;  // flags that were given; they count before the config file
  static constexpr std::string_view positional[] = {"model"};
  static constexpr std::string_view required[] = {"out"};
  // Names of the Qwen-VL fine-tuning toolkit and of transformers' trainer for the same things.
  static constexpr std::pair<std::string_view, std::string_view> aliases[] = {
      {"tune_mm_vision", "train_vision"},
      {"tune_mm_mlp", "train_merger"},
      {"tune_mm_llm", "train_language"},
      {"mm_projector_lr", "merger_lr"},
      {"vision_tower_lr", "vision_lr"},
      {"learning_rate", "lr"},
      {"output_dir", "out"},
      {"num_train_epochs", "epochs"},
      {"per_device_train_batch_size", "batch"},
      {"gradient_accumulation_steps", "accumulate"},
      {"model_max_length", "max_len"},
      {"lr_scheduler_type", "schedule"},
      {"adam_beta1", "beta1"},
      {"adam_beta2", "beta2"},
      {"adam_epsilon", "eps"},
      {"gradient_checkpointing", "checkpointing"},
      {"save_steps", "save_every"},
      {"save_total_limit", "keep"},
      {"logging_steps", "log_every"},
      {"eval_steps", "eval_every"},
      {"dataloader_num_workers", "workers"},
      {"logging_dir", "tensorboard"},
  };
  // long: a line an option
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder");
    v("out", out, "folder for checkpoints, the log and the trained model");
    v("config", config, "JSON file with these options by name; flags count before it");
    v("data", data, "conversations, .json or .jsonl (messages, or LLaVA's with image and video; repeatable); FILE%50 takes half of it");
    v("mix", mix, "JSON file with a list of {\"data\", \"percent\", \"base_dir\"}, in place of or beside --data");
    v("eval_data", eval_data, "held-out conversations whose loss is measured while training (repeatable)");
    v("epochs", epochs, "times that the data is seen");
    v("max_steps", max_steps, "optimizer steps, in place of --epochs; 0: by epochs");
    v("batch", batch, "conversations that are in memory at once, in all processes together");
    v("accumulate", accumulate, "batches whose gradients make one step");
    v("max_len", max_len, "longest sequence, tokens: text behind is cut off");
    v("lr", lr, "highest learning rate");
    v("vision_lr", vision_lr, "of the vision tower, when it differs");
    v("merger_lr", merger_lr, "of the projectors, when it differs");
    v("embeddings_lr", embeddings_lr, "of token table and head, when it differs");
    v("train_vision", train_vision, "train the vision tower");
    v("train_merger", train_merger, "train the projectors, those of deepstack taps included");
    v("train_language", train_language, "train the language model's blocks");
    v("train_embeddings", train_embeddings, "train token table and output head");
    v("schedule", schedule, "of the learning rate: cosine, linear or constant");
    v("warmup_ratio", warmup_ratio, "part of the steps in which the rate rises from 0");
    v("warmup_steps", warmup_steps, "the same in steps");
    v("weight_decay", weight_decay, "of AdamW; not of norms and biases");
    v("beta1", beta1, "of AdamW");
    v("beta2", beta2, "of AdamW");
    v("eps", eps, "of AdamW");
    v("max_grad_norm", max_grad_norm, "gradients are scaled down to this norm, 0: never");
    v("lora_r", lora_r, "train adapters of this rank and nothing else, 0: train the weights");
    v("lora_alpha", lora_alpha, "adapters count alpha / r; 2 r when not given");
    v("lora_dropout", lora_dropout, "part of what adapters read that is dropped while training");
    v("lora_target", lora_target, "regular expression found in the paths of layers that get adapters (repeatable); the attention of the language model");
    v("router_aux_loss_coef", router_aux_loss_coef, "of the load-balancing loss of mixtures of experts, 0: none");
    v("router_z_loss_coef", router_z_loss_coef, "of the mean squared logsumexp of router logits, 0: none");
    v("optim_states", optim_states, "what AdamW's moments are held in: fp32, bf16 or 8bit");
    v("dtype", dtype, "of weights and activations while training: fp32, or bf16 with fp32 masters");
    v("matmul_precision", matmul_precision, "of fp32 products: highest (fp32), or medium (of bf16, summed in fp32: faster on Zen 4 and with AMX, slower on Xeons without)");
    v("save_dtype", save_dtype, "of saved weights: fp32, bf16, fp16; the source's when not given");
    v("checkpointing", checkpointing, "keep no activations: each block runs again when its gradient is taken");
    v("shuffle", shuffle, "a new order in each epoch");
    v("seed", seed, "of the order, of shares of data files, of new adapters and of dropout");
    v("lanes", lanes, "parts of a batch that are worked on side by side, each with gradients of its own; results depend on it. 0: as many as "
                      "threads for small models, else 1");
    v("zero", zero, "what several processes spread among themselves: 0 nothing, 1 the optimizer's states, 2 gradients too, 3 weights too");
    v("rank_timeout", rank_timeout, "seconds that a process waits for one that is silent; one that ended is noticed at once");
    v("workers", workers, "threads that prepare conversations ahead");
    v("cache", cache, "memory for made samples (ids and pixels) that are kept for later epochs, where there are any; 0: none");
    v("on_bad", on_bad, "what a bad item does: refuse (before training) or skip");
    v("check_samples", check_samples, "look at every item whole before training: decode its pictures, count its tokens");
    v("check_only", check_only, "report on the data and stop");
    v("eval_every", eval_every, "steps between losses on --eval-data, 0: at the end only");
    v("eval_samples", eval_samples, "conversations of --eval-data that are used, 0: all");
    v("log_every", log_every, "steps between lines of log.jsonl");
    v("report_to", report_to, "tensorboard: an event file of what log.jsonl says; or none");
    v("tensorboard", tensorboard, "folder of the event file; OUT/runs when not given. Reports when --report-to says nothing else");
    v("save_every", save_every, "steps between checkpoints, 0: none but the last");
    v("keep", keep, "checkpoints kept, 0: all");
    v("restart", restart, "drop unfinished work instead of going on with it");
    v("overwrite", overwrite, "replace what is in the output folder");
  }
};

struct FinetuneReport {
  std::string out;
  Json data;  // what the check of the data found
  int64_t steps = 0, resumed_at = 0, tokens = 0, skipped = 0, parameters = 0, trained = 0, lanes = 0;
  int64_t rank = 0, ranks = 1;  // of the launcher's processes; the first one speaks for all
  double first_loss = 0, last_loss = 0, seconds = 0, tokens_per_second = 0;
  std::optional<double> eval_loss;
  bool checked_only = false;
  Json to_json() const;
  std::string to_text() const;
};

// One process of those that a launcher started (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), or the only one.
// Errors: usage for options that do not fit each other, the model or an earlier run in `out`; not_found and bad_file for data (all bad
// items are counted first); interrupted when *cancel became true, with a checkpoint to go on from; network when another
// process is gone.
FinetuneReport finetune(const FinetuneOptions& options, const MediaFlags& media, const ProgressSink& progress = {},
                        const std::atomic<bool>* cancel = nullptr);

}  // namespace statera
