// inspect: what a checkpoint holds: architecture, parameters by part, bytes, quantization, memory for a context, and what is wrong
// with it. Reads headers and configs only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace statera {

struct InspectOptions {
  std::string model;
  int64_t context = 4096;
  std::string kv_cache = "auto";
  bool tensors = false;
  static constexpr std::string_view positional[] = {"model"};
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder");
    v("context", context, "tokens whose keys and values the memory estimate counts");
    v("kv_cache", kv_cache, "what that estimate keeps them in: auto (fp32, as activations are unless told otherwise), fp16 or int8");
    v("tensors", tensors, "list every tensor, too");
  }
};

struct InspectPart {
  std::string name;  // role of the parameters: attention, mlp, embedding, vision, ...
  int64_t parameters = 0;
  int64_t bytes = 0;  // in the files, scales and zero points included
};

struct InspectReport {
  std::string model, model_type, architecture, dtype;
  int64_t parameters = 0, bytes = 0, tensors = 0, files = 0;
  int64_t active_parameters = 0;  // that one token is computed with: of experts those it is given to
  std::vector<InspectPart> parts;                       // largest first
  std::vector<std::pair<std::string, int64_t>> dtypes;  // stored type -> bytes
  // Quantized layers by how they are stored: "4-bit groups of 128, symmetric" -> count.
  std::vector<std::pair<std::string, int64_t>> quantization;
  std::string format;  // of the quantization; empty: none
  int64_t layers = 0, hidden_size = 0, vocab_size = 0, kv_heads = 0, head_dim = 0, max_positions = 0;
  int64_t context = 0, kv_bytes = 0, memory_bytes = 0;  // keys and values of `context` tokens; with the weights
  std::vector<std::string> missing, unexpected, misshapen;
  Json tensor_list;  // array of {name, dtype, shape, bytes, file} when asked for, else null
  Json to_json() const;
  std::string to_text() const;
};

// Works on checkpoints with problems: they are listed. Errors: what Checkpoint::open says, unsupported for an unknown model_type.
InspectReport inspect(const InspectOptions& options);

}  // namespace statera
