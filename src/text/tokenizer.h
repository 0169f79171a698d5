// Tokenizer: text to ids and back as the checkpoint's tokenizer.json says, and StreamDecoder for text that arrives token by token.
// A handle around the Rust library; not the chat template (chat_template.h), no placeholder expansion.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace statera {

// Copyable handle of an immutable tokenizer; const calls are thread-safe.
class Tokenizer {
 public:
  // DIR/tokenizer.json with tokenizer_config.json and special_tokens_map.json when they are there. Without tokenizer.json, the
  // vocab.json + merges.txt of a Qwen2 tokenizer are read instead; any other kind is Error(unsupported) that names what is there.
  static Tokenizer from_directory(const std::string& directory);
  // The bytes of a tokenizer.json, and a tokenizer_config.json (null: none). Error(bad_file) starts with `where`.
  static Tokenizer from_blob(std::string_view tokenizer_json, const Json& tokenizer_config, std::string_view where = "tokenizer.json");

  // Text must be UTF-8 (Error(usage)). add_special_tokens: what the post-processor adds (BOS of Llama; nothing for Qwen).
  std::vector<int64_t> encode(std::string_view text, bool add_special_tokens = true) const;
  // Ids the vocabulary does not have are left out, as Python does; a negative id is Error(usage).
  std::string decode(std::span<const int64_t> ids, bool skip_special_tokens = true) const;
  std::optional<int64_t> token_id(std::string_view token) const;
  // The token as the vocabulary spells it ("Ġhello"); an unknown id is Error(usage).
  std::string token(int64_t id) const;
  // Number of tokens, added ones included (not the rows of the embedding, which may be padded).
  int64_t vocab_size() const;
  // Of tokenizer_config.json or special_tokens_map.json; absent when not named there or not in the vocabulary.
  std::optional<int64_t> bos_id() const;
  std::optional<int64_t> eos_id() const;
  std::optional<int64_t> pad_id() const;
  // {"bos_token": ..., "eos_token": ..., ...} as strings.
  const Json& special_tokens() const;

 private:
  struct Handle;
  Tokenizer() = default;
  static Tokenizer open(std::string_view tokenizer_json, const Json& tokenizer_config, Json special, std::string_view where);
  std::optional<int64_t> special_id(std::string_view name) const;
  std::shared_ptr<const Handle> h_;
};

// Turns ids that come one at a time into text. What it has returned never changes: bytes of an unfinished character are held
// back until they are complete, or until flush. The parts together equal Tokenizer::decode of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens = true);
  // The text that id completes; often empty.
  std::string feed(int64_t id);
  // The rest, where an unfinished character shows as U+FFFD. The decoder then starts anew.
  std::string flush();

 private:
  std::string take_new(const std::string& text);
  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  // ids_: the window still decoded at each step. Its first settled_ ids gave shown_, which was returned earlier; they stay
  // because decoding depends on the neighbour to the left (leading spaces).
  std::vector<int64_t> ids_;
  size_t settled_ = 0;
  std::string shown_;
};

}  // namespace statera
