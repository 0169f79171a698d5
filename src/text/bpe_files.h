// A tokenizer.json made from the older pair vocab.json + merges.txt, for the one tokenizer class whose rules are known: Qwen2's
// byte-level BPE (NFC, its split pattern). Not a general converter of slow tokenizers.
#pragma once

#include <string_view>

#include "base/json.h"

namespace statera {

// True when tokenizer_config.json names Qwen2Tokenizer or Qwen2TokenizerFast.
bool is_qwen2_tokenizer(const Json& tokenizer_config);
// vocab: {"token": id}; merges: one "left right" a line, "#version" first. Errors (bad_file) name merges.txt and the line.
Json qwen2_tokenizer_json(const Json& vocab, std::string_view merges);

}  // namespace statera
