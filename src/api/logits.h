// logits: one forward pass over given messages or given tensors, written as safetensors: for parity work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/media_flags.h"
#include "base/json.h"

namespace statera {

struct LogitsOptions {
  std::string model, messages, inputs, out, dtype = "fp32", compute = "exact", vision_attention = "exact", kv_cache = "auto";
  bool hidden = false;
  MediaFlags media;
  static constexpr std::string_view positional[] = {"model"};
  static constexpr std::string_view required[] = {"out"};
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder");
    v("messages", messages, "JSON file with one conversation; or --inputs");
    v("inputs", inputs, "safetensors file with tensors by their Hugging Face forward names");
    v("out", out, "safetensors file to write");
    v("hidden", hidden, "write hidden states, too");
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; weights keep their stored precision");
    v("compute", compute, "how low-bit weights meet activations: exact, int8 (rounded to 8 bits, products in integers), or auto: int8 for layers that can");
    v("vision_attention", vision_attention, "how patches of a picture attend to each other: exact, int8 (rounded to 8 bits, both products in integers), or auto: int8 where layers of the tower compute in integers, too");
    v("kv_cache", kv_cache, "what keys and values are rounded to, as a cache would keep them: auto (not at all), fp16 or int8");
    media.fields(v);
  }
};

struct LogitsReport {
  std::string out;
  int64_t sequences = 0, tokens = 0, vocabulary = 0;
  std::vector<int64_t> next;  // most probable token after each sequence
  double seconds = 0;         // of the forward pass
  Json to_json() const;
  std::string to_text() const;
};

// Inputs: input_ids [L] or [B, L]; attention_mask [B, L] (rows with 0 are left out); position_ids [L], [B, L], [3, L], [3, B, L] or
// [4, B, L] (its first row is the text row); pixel_values, image_grid_thw, pixel_values_videos, video_grid_thw, second_per_grid_ts.
// mm_token_type_ids and other outputs and names are ignored.
// Writes logits f32 [B, L, V] and with `hidden` hidden_<i> [B, L, H]: hidden_0 the spliced embeddings, hidden_i the output of block i-1
// before anything deepstack adds, the last one after the final norm. Left-out rows are 0.
LogitsReport logits(const LogitsOptions& options);

}  // namespace statera
