// TokenizerTrainer: learns the vocabulary of a byte-level BPE tokenizer of the Qwen2 kind from texts that come one at a time, which are
// counted and not kept. Files, chat templates and tokenizer_config.json are api/tokenizer_train.cpp's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace statera {

// Special tokens of Qwen2-VL to Qwen3-VL in the order of their ids.
const std::vector<std::string>& qwen_special_tokens();

struct TokenizerSpec {
  int64_t vocab_size = 0;     // special tokens included
  int64_t min_frequency = 2;  // times that a pair must be seen to become a token
  std::vector<std::string> special = qwen_special_tokens();
};

class TokenizerTrainer {
 public:
  // Error(usage) for special tokens that are empty or given twice, and for numbers that cannot be.
  explicit TokenizerTrainer(TokenizerSpec spec);
  // UTF-8 (Error(bad_file)). Special tokens in it separate pieces, as they do when a tokenizer reads it.
  void add(std::string_view text);
  // The bytes of a tokenizer.json: ids 0..255 are bytes, then come learnt tokens, then the special ones. The same texts in any order give
  // the same bytes. Error(usage) when the text does not hold enough pairs for the size, or the size not 256 bytes and the special tokens.
  std::string finish() const;
  int64_t bytes() const { return bytes_; }  // of text, without special tokens

 private:
  struct Handle;
  void add_piece(std::string_view piece);
  TokenizerSpec spec_;
  std::shared_ptr<Handle> h_;
  int64_t bytes_ = 0;
};

// tokenizer_config.json of such a tokenizer: Qwen2Tokenizer with its added tokens, `eos` and `pad`.
Json trained_tokenizer_config(const TokenizerSpec& spec, const std::string& eos, const std::string& pad);

}  // namespace statera
