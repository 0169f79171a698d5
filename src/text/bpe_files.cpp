// Turning vocab.json and merges.txt into the JSON of a tokenizer; the rules are those of Qwen2 and no other.
#include "text/bpe_files.h"

#include <string>
#include <utility>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

// How Qwen2 cuts text before merging: contractions, words with one leading non-letter, single digits, punctuation, blank runs.
constexpr const char* kPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json object(Json::Object members) {
  Json out = Json::object();
  out.members() = std::move(members);
  return out;
}

Json byte_level() {
  return object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}});
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
    Json pair = Json::array();
    pair.push(text.substr(0, space));
    pair.push(text.substr(space + 1));
    out.push(std::move(pair));
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
  const Json model = object({{"type", "BPE"}, {"vocab", vocab}, {"merges", merge_list(merges)}, {"byte_fallback", false}, {"ignore_merges", false}});
  const Json cut = object({{"type", "Split"}, {"pattern", object({{"Regex", kPattern}})}, {"behavior", "Isolated"}, {"invert", false}});
  Json steps = Json::array();
  steps.push(cut);
  steps.push(byte_level());
  return object({{"version", "1.0"},
                 {"added_tokens", Json::array()},
                 {"normalizer", object({{"type", "NFC"}})},
                 {"pre_tokenizer", object({{"type", "Sequence"}, {"pretokenizers", steps}})},
                 {"post_processor", nullptr},
                 {"decoder", byte_level()},
                 {"model", model}});
}

}  // namespace statera
