// Marks and pictures to content items.
#include "quant/calib/llava.h"

#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

constexpr std::string_view kTag = "<image>";

Json message(std::string_view role, Json content) {
  Json m = Json::object();
  m.set("role", role);
  m.set("content", std::move(content));
  return m;
}

Json picture(const std::string& path) {
  Json item = Json::object();
  item.set("type", "image");
  item.set("image", path);
  return item;
}

Json words(std::string_view text) {
  Json item = Json::object();
  item.set("type", "text");
  item.set("text", text);
  return item;
}

std::vector<std::string> pictures_of(const Json& item, const std::string& where) {
  std::vector<std::string> out;
  const Json* image = item.get("image");
  if (!image) return out;
  if (image->is_string()) {
    if (!image->as_string().empty()) out.push_back(image->as_string());
    return out;
  }
  for (const Json& p : image->as_array(where + ": image")) out.push_back(p.as_string(where + ": image"));
  return out;
}

// "<image>" in a turn's text stands for the next picture; the line break that separates it from the words goes with it.
Json turn_content(std::string_view text, const std::vector<std::string>& pictures, size_t& used, const std::string& where) {
  Json content = Json::array();
  auto add = [&](std::string_view piece) {
    piece = trim(piece);
    if (!piece.empty()) content.push(words(piece));
  };
  for (size_t at; (at = text.find(kTag)) != text.npos; text.remove_prefix(at + kTag.size())) {
    add(text.substr(0, at));
    if (used >= pictures.size())
      throw Error(ErrorKind::bad_file, where + ": more <image> marks than pictures (" + std::to_string(pictures.size()) + ")");
    content.push(picture(pictures[used++]));
  }
  add(text);
  return content;
}

std::string without(std::string text, std::string_view what) {
  for (size_t at; (at = text.find(what)) != text.npos;) text.erase(at, what.size());
  return text;
}

}  // namespace

Conversation llava_conversation(const Json& item, const std::string& where) {
  const std::vector<std::string> pictures = pictures_of(item, where);
  Json messages = Json::array();
  size_t used = 0;
  bool marked = false;
  const auto& turns = item.at("conversations", where).as_array(where + ": conversations");
  for (const Json& turn : turns) marked |= turn.get_string("value", "").find("<image>") != std::string::npos;
  for (const Json& turn : turns) {
    const std::string from = turn.at("from", where).as_string(where + ": from"),
                      value = turn.at("value", where).as_string(where + ": value");
    if (from == "human" || from == "user") {
      Json content = Json::array();
      if (!marked) {
        for (; used < pictures.size(); ++used) content.push(picture(pictures[used]));
      }
      Json rest = turn_content(value, pictures, used, where);
      for (Json& piece : rest.items()) content.push(std::move(piece));
      messages.push(message("user", std::move(content)));
    } else if (from == "gpt" || from == "assistant" || from == "system") {
      messages.push(message(from == "system" ? "system" : "assistant", std::string(trim(value))));
    } else {
      throw Error(ErrorKind::bad_file, where + ": from: \"" + from + "\" is neither human, gpt nor system");
    }
  }
  if (used != pictures.size())
    throw Error(ErrorKind::bad_file,
                where + ": " + std::to_string(pictures.size()) + " pictures, but " + std::to_string(used) + " <image> marks");
  return Conversation::from_json(messages, where);
}

Conversation llava_last_turn(const Json& item, const std::string& where) {
  std::string asked, answered;
  bool human = false, gpt = false;
  for (const Json& turn : item.at("conversations", where).as_array(where + ": conversations")) {
    const std::string from = turn.at("from", where).as_string(where + ": from");
    const std::string& value = turn.at("value", where).as_string(where + ": value");
    if (from == "human") asked = value, human = true;
    if (from == "gpt") answered = value, gpt = true;
  }
  if (!human || !gpt) throw Error(ErrorKind::bad_file, where + ": has no turn of " + (human ? "gpt" : "human"));
  asked = without(without(std::move(asked), kTag), "\n");
  const std::vector<std::string> pictures = pictures_of(item, where);
  Json content = Json::array(), messages = Json::array();
  for (const std::string& path : pictures) content.push(picture(path));
  content.push(words(asked));
  messages.push(message("user", pictures.empty() ? Json(asked) : std::move(content)));
  messages.push(message("assistant", std::move(answered)));
  return Conversation::from_json(messages, where);
}

}  // namespace statera
