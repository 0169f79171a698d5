#include "text/bpe_files.h"

#include <string>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

// How Qwen2 cuts text before merging: contractions, words with one leading non-letter, single digits, punctuation, blank runs.
constexpr const char* kPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json typed(std::string_view type) {
  Json out = Json::object();
  out.set("type", type);
  return out;
}

Json byte_level(bool use_regex) {
  Json out = typed("ByteLevel");
  return out.set("add_prefix_space", false).set("trim_offsets", false).set("use_regex", use_regex);
}

Json merge_list(std::string_view merges) {
  Json out = Json::array();
  int64_t number = 0;
  for (const std::string& line : split(merges, '\n')) {
    ++number;
    std::string_view text = line;
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty() || (number == 1 && text.starts_with("#version"))) continue;
    const auto space = text.find(' ');
    if (space == text.npos || space == 0 || space + 1 == text.size()) {
      throw Error(ErrorKind::bad_file, "merges.txt: line " + std::to_string(number) + ": expected two tokens");
    }
    out.push(Json(Json::Array{Json(text.substr(0, space)), Json(text.substr(space + 1))}));
  }
  return out;
}

}  // namespace

bool is_qwen2_tokenizer(const Json& tokenizer_config) {
  const Json* name = tokenizer_config.get("tokenizer_class");
  return name && name->is_string() && (name->as_string() == "Qwen2Tokenizer" || name->as_string() == "Qwen2TokenizerFast");
}

Json qwen2_tokenizer_json(const Json& vocab, std::string_view merges) {
  vocab.as_object("vocab.json");
  Json model = typed("BPE");
  model.set("vocab", vocab).set("merges", merge_list(merges)).set("byte_fallback", false).set("ignore_merges", false);
  Json cut = typed("Split");
  Json pattern = Json::object();
  pattern.set("Regex", kPattern);
  cut.set("pattern", pattern).set("behavior", "Isolated").set("invert", false);
  Json pre = typed("Sequence");
  pre.set("pretokenizers", Json(Json::Array{cut, byte_level(false)}));
  Json out = Json::object();
  out.set("version", "1.0").set("added_tokens", Json::array()).set("normalizer", typed("NFC")).set("pre_tokenizer", pre);
  return out.set("post_processor", nullptr).set("decoder", byte_level(false)).set("model", model);
}

}  // namespace statera
