// ChatTemplate: the Jinja template of a checkpoint, rendered as transformers' apply_chat_template renders it. Not the tokenizer,
// and no placeholder expansion: an image is one marker in the result.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"

namespace statera {

struct RenderOptions {
  bool add_generation_prompt = true;
  bool add_vision_id = false;
  Json tools = {};      // list of tool descriptions; null: none
  Json extra = {};      // further variables of the template (object; null: none); they win over the special tokens
  std::string name = {};  // which of several named templates; empty: "tool_use" when tools are given and it is there, else "default"
};

// Copyable handle; const calls are thread-safe.
class ChatTemplate {
 public:
  // Looks for chat_template.jinja, chat_template.json, "chat_template" in tokenizer_config.json (a string, or a list of {name,
  // template}), then in processor_config.json; the first wins. None: Error(not_found). A syntax error is Error(bad_file) naming
  // file and line.
  static ChatTemplate from_directory(const std::string& directory);
  static bool in_directory(const std::string& directory);
  // special_tokens: {"bos_token": ...}, given to the template as variables.
  static ChatTemplate from_source(std::string_view source, std::string_view where, Json special_tokens = Json::object());

  // messages: a list of {role, content}. Error: kind usage when the template refuses (raise_exception), else bad_file; both name
  // file and line.
  std::string render(const Json& messages, const RenderOptions& options = {}) const;
  // The file (and key) that it came from.
  const std::string& where() const { return where_; }

 private:
  struct Compiled;
  ChatTemplate() = default;
  const Compiled& choose(const RenderOptions& options) const;
  std::string where_;
  Json special_tokens_;
  std::map<std::string, std::shared_ptr<const Compiled>> templates_;  // by name
};

}  // namespace statera
