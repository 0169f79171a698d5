// compare: how far the next-token distributions of two checkpoints lie apart, over the same prompts: what quantization cost. One model
// is in memory at a time; of the first one, its last hidden rows and its head stay.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/media_flags.h"
#include "base/json.h"
#include "base/progress.h"
#include "eval/divergence.h"

namespace statera {

struct CompareOptions {
  std::string a, b, dtype = "fp32", compute = "exact", vision_attention = "exact", kv_cache = "auto", scratch;
  std::vector<std::string> data, messages;
  int64_t max_length = 0, limit = 0;
  MediaFlags media;
  static constexpr std::string_view positional[] = {"a", "b"};
  template <class V>
  void fields(V& v) {
    v("a", a, "checkpoint folder of the reference");
    v("b", b, "checkpoint folder compared with it");
    v("data", data, "file of texts or conversations (repeatable): .txt, .jsonl, .json, .parquet; PATH:FIELD names the texts' field");
    v("messages", messages,
      "JSON file with conversations (repeatable); a few plain texts of our own when neither this nor --data is given");
    v("max_length", max_length,
      "tokens of a sequence of --data; texts are cut into pieces; 0: 2048, or the model's limit where that is less");
    v("limit", limit, "sequences of each file of --data; 0: all");
    v("scratch", scratch, "folder for temporary results (4 bytes per token and hidden unit); the system's when not given");
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; weights keep their stored precision");
    v("compute", compute, "how B's low-bit weights meet activations: exact, int8 (rounded to 8 bits, products in integers), or auto: int8 for layers that can; A's are exact");
    v("vision_attention", vision_attention, "how patches of a picture attend to each other in B: exact, int8 (rounded to 8 bits, both products in integers), or auto: int8 where layers of the tower compute in integers, too");
    v("kv_cache", kv_cache, "what B's keys and values are rounded to, as a cache would keep them: auto (not at all), fp16 or int8; A's are not");
    media.fields(v);
  }
};

struct CompareReport {
  std::string a, b;
  Divergence total, text, vision;       // text, vision: positions without and with a picture or clip before them in their sequence
  std::vector<Divergence> by_position;  // by the position in the sequence: 0-15, 16-63, ...; empty buckets left out
  std::vector<Divergence> prompts;      // by sequence
  uint64_t scratch_bytes = 0;
  uint64_t peak_rss = 0;  // of this process, bytes
  double seconds = 0;
  Json to_json() const;
  std::string to_text() const;
};

// Prompts are made with A's tokenizer and template. Positions before an image or video placeholder are left out: what follows them is no
// choice of the model. Error(mismatch) when B's vocabulary is of another size; errors of the data name file and line.
CompareReport compare(const CompareOptions& options, const ProgressSink& progress = {});

}  // namespace statera
