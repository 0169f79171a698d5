// preprocess: messages to the tensors a Hugging Face model's forward takes, without loading weights.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/media_flags.h"
#include "base/json.h"

namespace statera {

struct PreprocessOptions {
  std::string model, messages, out;
  bool add_generation_prompt = true, add_vision_id = false;
  MediaFlags media;
  static constexpr std::string_view positional[] = {"model"};
  static constexpr std::string_view required[] = {"messages", "out"};
  template <class V>
  void fields(V& v) {
    v("model", model, "checkpoint folder");
    v("messages", messages, "JSON file with one conversation");
    v("out", out, "safetensors file to write");
    v("add_generation_prompt", add_generation_prompt, "end the prompt where the answer begins");
    v("add_vision_id", add_vision_id, "number pictures and clips in the prompt, where the template can");
    media.fields(v);
  }
};

struct PreprocessReport {
  std::string prompt, out;
  int64_t tokens = 0;
  std::vector<std::string> tensors;  // "pixel_values [56, 1176]"
  Json to_json() const;
  std::string to_text() const;
};

// Writes input_ids i64 [1, L], position_ids i64 [1, L] or [3, 1, L], and where there are media pixel_values f32 [rows, C*Tp*p*p],
// image_grid_thw i64 [n, 3], pixel_values_videos, video_grid_thw, second_per_grid_ts f32 [n]; the prompt stands in the metadata
// as "prompt". Errors: usage when the file holds not exactly one conversation, and those of reading messages and media.
PreprocessReport preprocess(const PreprocessOptions& options);

}  // namespace statera
