// init: a checkpoint of seeded random weights, scaled like a trained model's, from a config.json or a preset; streamed to disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/progress.h"

namespace statera {

struct InitOptions {
  std::string config, out, dtype, max_shard = "5GB";
  int64_t seed = 0;
  bool overwrite = false;
  static constexpr std::string_view positional[] = {"config"};
  static constexpr std::string_view required[] = {"out"};
  template <class V>
  void fields(V& v) {
    v("config", config, "a config.json, a folder with one (its tokenizer and processor files are copied), or a preset");
    v("out", out, "folder to write; appears when complete");
    v("seed", seed, "of the random weights");
    v("dtype", dtype, "of the weights: bf16, fp16 or fp32; the config's when not given");
    v("max_shard", max_shard, "size of a weight file, e.g. 5GB");
    v("overwrite", overwrite, "replace an existing checkpoint folder");
  }
};

struct InitReport {
  std::string out, model_type, dtype;
  int64_t seed = 0, parameters = 0, bytes = 0, files = 0;
  double seconds = 0;
  Json to_json() const;
  std::string to_text() const;
};

// Element i of a tensor depends on (seed, name in the files, i) only: not on threads, shards or the order of writing. Norm weights are 1,
// biases and tables are small, matrices have the standard deviation 1/sqrt(inputs).
// Errors: not_found for no such config or preset, unsupported for its model_type, usage when `out` exists, io for a full disk,
// interrupted when *cancel became true; nothing is left behind.
InitReport init(const InitOptions& options, const ProgressSink& progress = {}, const std::atomic<bool>* cancel = nullptr);

}  // namespace statera
