// Finding, compiling and rendering chat templates over the C ABI; the Jinja environment itself is rust/src/chat.rs.
#include "text/chat_template.h"

#include <optional>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "text/rust_text.h"
#include "text/special_tokens.h"

namespace statera {

struct ChatTemplate::Compiled {
  StateraTemplate* raw = nullptr;
  Compiled(std::string_view source, std::string_view where) {
    StateraBuffer error{};
    require_ok(statera_template_open(rust_bytes(source), source.size(), rust_bytes(where), where.size(), &raw, &error), error,
               ErrorKind::bad_file);
  }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() { statera_template_close(raw); }
};

namespace {

constexpr std::string_view kKey = "chat_template";

struct Found {
  Json source;  // a string, or a list of {name, template}
  std::string where;
};

// The template of a directory in the order of transformers.
std::optional<Found> find_template(const std::string& directory) {
  const std::string jinja = directory + "/chat_template.jinja";
  if (is_file(jinja)) return Found{Json(read_file(jinja, 16u << 20)), jinja};
  for (const char* name : {"chat_template.json", "tokenizer_config.json", "processor_config.json"}) {
    const std::string path = directory + "/" + name;
    if (!is_file(path)) continue;
    const Json file = Json::read_file(path);
    file.as_object(path);
    if (const Json* source = file.get(kKey)) return Found{*source, path + ": chat_template"};
  }
  return std::nullopt;
}

}  // namespace

bool ChatTemplate::in_directory(const std::string& directory) { return find_template(directory).has_value(); }

ChatTemplate ChatTemplate::from_directory(const std::string& directory) {
  const std::optional<Found> found = find_template(directory);
  if (!found) {
    throw Error(ErrorKind::not_found, directory +
                                          ": no chat template (looked for chat_template.jinja, chat_template.json, and \"chat_template\" in "
                                          "tokenizer_config.json and processor_config.json)");
  }
  const Json special = special_tokens_of_directory(directory);
  if (found->source.is_string()) return from_source(found->source.as_string(), found->where, special);
  ChatTemplate out;
  out.where_ = found->where;
  out.special_tokens_ = special;
  for (const Json& entry : found->source.as_array(found->where)) {
    const std::string& name = entry.at("name", found->where).as_string(found->where + ": name");
    const std::string& source = entry.at("template", found->where).as_string(found->where + ": template");
    out.templates_[name] = std::make_shared<Compiled>(source, found->where + ": " + name);
  }
  if (out.templates_.empty()) throw Error(ErrorKind::bad_file, found->where + ": an empty list");
  return out;
}

ChatTemplate ChatTemplate::from_source(std::string_view source, std::string_view where, Json special_tokens) {
  ChatTemplate out;
  out.where_ = where;
  out.special_tokens_ = std::move(special_tokens);
  out.templates_["default"] = std::make_shared<Compiled>(source, where);
  return out;
}

const ChatTemplate::Compiled& ChatTemplate::choose(const RenderOptions& options) const {
  std::string name = options.name;
  if (name.empty()) name = !options.tools.is_null() && templates_.contains("tool_use") ? "tool_use" : "default";
  const auto it = templates_.find(name);
  if (it != templates_.end()) return *it->second;
  std::vector<std::string> known;
  for (const auto& [key, compiled] : templates_) known.push_back(key);
  throw Error(ErrorKind::usage, where_ + ": no template named \"" + name + "\" (there is " + join(known, ", ") + ")");
}

std::string ChatTemplate::render(const Json& messages, const RenderOptions& options) const {
  const Compiled& compiled = choose(options);
  Json context = special_tokens_;
  context.set("messages", messages);
  context.set("tools", options.tools);
  context.set("documents", nullptr);
  context.set("add_generation_prompt", options.add_generation_prompt);
  // Absent rather than false when not asked for: templates of other families may test whether it is defined.
  if (options.add_vision_id) context.set("add_vision_id", true);
  if (!options.extra.is_null()) {
    for (const auto& [name, value] : options.extra.as_object("template variables")) context.set(name, value);
  }
  const std::string json = context.dump();
  StateraBuffer text{}, error{};
  require_ok(statera_template_render(compiled.raw, rust_bytes(json), json.size(), &text, &error), error, ErrorKind::bad_file);
  return take(text);
}

}  // namespace statera
