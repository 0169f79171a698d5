// tokenizer_train: a byte-level BPE tokenizer learnt from files of texts and conversations, as a folder of tokenizer.json,
// tokenizer_config.json and chat_template.jinja.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/progress.h"

namespace statera {

struct TokenizerTrainOptions {
  std::vector<std::string> files, special;
  std::string out, eos = "<|im_end|>", pad = "<|endoftext|>", chat_template;
  std::optional<int64_t> vocab_size;
  int64_t min_frequency = 2;
  bool overwrite = false;
  static constexpr std::string_view positional[] = {"files"};
  static constexpr std::string_view required[] = {"out", "vocab_size"};
  template <class V>
  void fields(V& v) {
    v("files", files, "texts or conversations: .txt, .jsonl, .json, .parquet; PATH:FIELD names the texts' field");
    v("out", out, "folder to write; appears when complete");
    v("vocab_size", vocab_size, "tokens in all: 256 bytes, learnt ones, special ones");
    v("special", special, "special token (repeatable); they get the last ids, in this order; those of Qwen3-VL when not given");
    v("eos", eos, "special token that ends an answer");
    v("pad", pad, "special token that fills up");
    v("min_frequency", min_frequency, "times a pair must occur to become a token");
    v("chat_template", chat_template, "Jinja file with the chat template; ChatML with pictures, clips and tools when not given");
    v("overwrite", overwrite, "replace an existing tokenizer folder");
  }
};

struct TokenizerTrainReport {
  std::string out;
  int64_t vocab_size = 0, files = 0, texts = 0, conversations = 0, bytes = 0;
  double bytes_per_token = 0;                            // of the first texts, tokenized again
  std::vector<std::pair<std::string, int64_t>> special;  // token and id
  double seconds = 0;
  Json to_json() const;
  std::string to_text() const;
};

// Conversations are rendered by the chat template, so what is counted is what the tokenizer will read. The same files give the same bytes.
// Errors: those of reading files (naming file and line), usage for numbers that do not fit, interrupted; nothing is left behind.
TokenizerTrainReport tokenizer_train(const TokenizerTrainOptions& options, const ProgressSink& progress = {},
                                     const std::atomic<bool>* cancel = nullptr);

}  // namespace statera
