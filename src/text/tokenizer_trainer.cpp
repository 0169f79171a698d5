// TokenizerTrainer over the C ABI (rust/src/trainer.rs).
#include "text/tokenizer_trainer.h"

#include <algorithm>

#include "text/rust_text.h"

namespace statera {

struct TokenizerTrainer::Handle {
  StateraTrainer* raw = nullptr;
  Handle() {
    StateraBuffer error{};
    require_ok(statera_trainer_open(&raw, &error), error, ErrorKind::usage);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { statera_trainer_close(raw); }
};

const std::vector<std::string>& qwen_special_tokens() {
  static const std::vector<std::string> tokens = {
      "<|endoftext|>",  "<|im_start|>", "<|im_end|>",   "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",  "<|box_end|>",
      "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",   "<|vision_pad|>",     "<|image_pad|>", "<|video_pad|>"};
  return tokens;
}

TokenizerTrainer::TokenizerTrainer(TokenizerSpec spec) : spec_(std::move(spec)) {
  if (spec_.vocab_size < 1 || spec_.vocab_size > (1 << 24))
    throw Error(ErrorKind::usage, "vocab_size: " + std::to_string(spec_.vocab_size) + " is not between 1 and 16777216");
  if (spec_.min_frequency < 1) throw Error(ErrorKind::usage, "min_frequency: must be 1 or more");
  for (const std::string& token : spec_.special) {
    if (token.empty()) throw Error(ErrorKind::usage, "special: an empty token");
    if (std::count(spec_.special.begin(), spec_.special.end(), token) > 1)
      throw Error(ErrorKind::usage, "special: \"" + token + "\" is given twice");
  }
  h_ = std::make_shared<Handle>();
}

void TokenizerTrainer::add(std::string_view text) {
  while (!text.empty()) {
    size_t at = text.npos, length = 0;  // the first special token; of several there the longest
    for (const std::string& token : spec_.special) {
      const size_t found = text.find(token);
      if (found < at || (found != text.npos && found == at && token.size() > length)) at = found, length = token.size();
    }
    add_piece(text.substr(0, at));
    text.remove_prefix(at == text.npos ? text.size() : at + length);
  }
}

void TokenizerTrainer::add_piece(std::string_view piece) {
  if (piece.empty()) return;
  StateraBuffer error{};
  require_ok(statera_trainer_add(h_->raw, rust_bytes(piece), piece.size(), &error), error, ErrorKind::bad_file);
  bytes_ += static_cast<int64_t>(piece.size());
}

std::string TokenizerTrainer::finish() const {
  Json settings = Json::object();
  settings.set("vocab_size", spec_.vocab_size);
  settings.set("min_frequency", spec_.min_frequency);
  settings.set("special", Json(spec_.special));
  const std::string text = settings.dump();
  StateraBuffer json{}, error{};
  require_ok(statera_trainer_finish(h_->raw, rust_bytes(text), text.size(), &json, &error), error, ErrorKind::usage);
  return take(json);
}

Json trained_tokenizer_config(const TokenizerSpec& spec, const std::string& eos, const std::string& pad) {
  Json added = Json::object();
  const int64_t first = spec.vocab_size - static_cast<int64_t>(spec.special.size());
  for (size_t i = 0; i < spec.special.size(); ++i) {
    Json token = Json::object();
    token.set("content", spec.special[i]);
    for (const char* flag : {"lstrip", "normalized", "rstrip", "single_word"}) token.set(flag, false);
    token.set("special", true);
    added.set(std::to_string(first + static_cast<int64_t>(i)), std::move(token));
  }
  Json out = Json::object();
  out.set("add_bos_token", false);
  out.set("add_prefix_space", false);
  out.set("added_tokens_decoder", std::move(added));
  out.set("additional_special_tokens", Json(spec.special));
  out.set("bos_token", nullptr);
  out.set("clean_up_tokenization_spaces", false);
  out.set("eos_token", eos);
  out.set("errors", "replace");
  out.set("pad_token", pad);
  out.set("split_special_tokens", false);
  out.set("tokenizer_class", "Qwen2Tokenizer");
  out.set("unk_token", nullptr);
  return out;
}

}  // namespace statera
