// StreamDecoder: decodes a short window at every step and returns what grew, once it no longer ends in an unfinished character.
#include <utility>

#include "text/tokenizer.h"

namespace statera {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD, what an unfinished character decodes to
// A character has at most 4 bytes, so this many pending tokens are broken text, not an unfinished character.
constexpr size_t kMaxPending = 64;

}  // namespace

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}

std::string StreamDecoder::take_new(const std::string& text) {
  // shown_ is a prefix for every decoder that works from left to right; else the common part counts as shown.
  size_t common = 0;
  while (common < shown_.size() && common < text.size() && shown_[common] == text[common]) ++common;
  return text.substr(common);
}

std::string StreamDecoder::feed(int64_t id) {
  ids_.push_back(id);
  std::string text = tokenizer_.decode(ids_, skip_special_tokens_);
  const bool forced = ids_.size() - settled_ > kMaxPending;
  if (!forced && (std::string_view(text).ends_with(kReplacement) || text.size() <= shown_.size() || !text.starts_with(shown_))) return "";
  std::string fresh = take_new(text);
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(settled_));
  settled_ = ids_.size();
  shown_ = tokenizer_.decode(ids_, skip_special_tokens_);
  return fresh;
}

std::string StreamDecoder::flush() {
  std::string rest = take_new(tokenizer_.decode(ids_, skip_special_tokens_));
  ids_.clear();
  settled_ = 0;
  shown_.clear();
  return rest;
}

}  // namespace statera
