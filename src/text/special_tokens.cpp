// Reading the special tokens of the two side files; a token may be a string or a saved AddedToken object.
#include "text/special_tokens.h"

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

// A token is a string or a saved AddedToken object.
const std::string* content_of(const Json& token) {
  if (token.is_string()) return &token.as_string();
  const Json* content = token.find("content");
  return content && content->is_string() ? &content->as_string() : nullptr;
}

Json read_object(const std::string& path) {
  if (!is_file(path)) return Json::object();
  Json json = Json::read_file(path);
  json.as_object(path);
  return json;
}

}  // namespace

Json special_tokens(const Json& tokenizer_config) {
  Json out = Json::object();
  if (!tokenizer_config.is_object()) return out;
  for (const auto& [name, value] : tokenizer_config.as_object()) {
    if (name == "additional_special_tokens" && value.is_array()) {
      Json list = Json::array();
      for (const Json& token : value.as_array()) {
        if (const std::string* content = content_of(token)) list.push(*content);
      }
      out.set(name, std::move(list));
    } else if (std::string_view(name).ends_with("_token")) {
      if (const std::string* content = content_of(value)) out.set(name, *content);
    }
  }
  return out;
}

Json read_tokenizer_config(const std::string& directory) { return read_object(directory + "/tokenizer_config.json"); }

Json special_tokens_of_directory(const std::string& directory) {
  Json out = special_tokens(read_tokenizer_config(directory));
  const Json map = special_tokens(read_object(directory + "/special_tokens_map.json"));
  for (const auto& [name, value] : map.as_object()) {
    if (!out.has(name)) out.set(name, value);
  }
  return out;
}

}  // namespace statera
