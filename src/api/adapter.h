// adapter: low-rank adapters in PEFT's layout (adapter_config.json, adapter_model.safetensors), and folding them into the weights of
// their base model.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/progress.h"

namespace statera {

struct MergeOptions {
  std::string adapter, base, out, dtype;
  bool overwrite = false;
  static constexpr std::string_view positional[] = {"adapter"};
  static constexpr std::string_view required[] = {"out"};
  template <class V>
  void fields(V& v) {
    v("adapter", adapter, "folder with adapter_config.json and adapter_model.safetensors");
    v("base", base, "checkpoint folder; the one that the adapter names when not given");
    v("out", out, "folder to write");
    v("dtype", dtype, "of the written weights: fp32, bf16, fp16; the base's when not given");
    v("overwrite", overwrite, "replace an existing checkpoint folder");
  }
};

struct MergeReport {
  std::string out, base;
  int64_t layers = 0;
  Json to_json() const;
  std::string to_text() const;
};

// W + alpha / r * B A of every adapted layer, computed in fp32. Errors: not_found, bad_file for an adapter of another layout or model,
// unsupported for quantized layers and for kinds of adapters that are no plain LoRA, usage when `out` exists.
MergeReport merge(const MergeOptions& options);

}  // namespace statera
