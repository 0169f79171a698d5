// compare: how far the next-token distributions of two checkpoints lie apart, over the same prompts: what quantization cost.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/media_flags.h"
#include "base/json.h"
#include "base/progress.h"

namespace statera {

struct CompareOptions {
  std::string a, b, dtype = "fp32";
  std::vector<std::string> messages;
  MediaFlags media;
  static constexpr std::string_view positional[] = {"a", "b"};
  template <class V>
  void fields(V& v) {
    v("a", a, "checkpoint folder of the reference");
    v("b", b, "checkpoint folder compared with it");
    v("messages", messages, "JSON file with conversations (repeatable); a few plain texts of our own when not given");
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; weights keep their stored precision");
    media.fields(v);
  }
};

// Over positions (rows of logits): KL(A || B) in nats, share of equal most probable tokens, differences of logits.
struct Divergence {
  std::string prompt;  // "messages.json #2", or the beginning of the text
  int64_t positions = 0;
  double kl_sum = 0, kl_max = 0;
  int64_t agreed = 0;
  double logit_max = 0;  // largest |A - B|
  double kl_mean() const { return positions ? kl_sum / static_cast<double>(positions) : 0; }
  double agreement() const { return positions ? static_cast<double>(agreed) / static_cast<double>(positions) : 0; }
  void add(const Divergence& other);
  Json to_json() const;
};

struct CompareReport {
  std::string a, b;
  Divergence total;
  std::vector<Divergence> prompts;
  double seconds = 0;
  Json to_json() const;
  std::string to_text() const;
};

// Prompts are made with A's tokenizer and template. Error(mismatch) when B's vocabulary is of another size.
CompareReport compare(const CompareOptions& options, const ProgressSink& progress = {});

}  // namespace statera
