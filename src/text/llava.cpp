// Marks and pictures to content items.
#include "text/llava.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

constexpr std::string_view kTag = "<image>", kVideoTag = "<video>";

Json message(std::string_view role, Json content) {
  Json m = Json::object();
  m.set("role", role);
  m.set("content", std::move(content));
  return m;
}

Json media_item(std::string_view kind, const std::string& path) {
  Json item = Json::object();
  item.set("type", kind);
  item.set(kind, path);
  return item;
}

Json words(std::string_view text) {
  Json item = Json::object();
  item.set("type", "text");
  item.set("text", text);
  return item;
}

// A path or a list of paths under either spelling ("image", "images").
std::vector<std::string> paths_of(const Json& item, const std::string& key, const std::string& where) {
  std::vector<std::string> out;
  for (const std::string& name : {key, key + "s"}) {
    const Json* value = item.get(name);
    if (!value) continue;
    if (value->is_string()) {
      if (!value->as_string().empty()) out.push_back(value->as_string());
      continue;
    }
    for (const Json& p : value->as_array(where + ": " + name)) out.push_back(p.as_string(where + ": " + name));
  }
  return out;
}

// Pictures or clips of an item, handed out in order.
struct Pool {
  std::string kind;  // image, video
  std::string_view tag;
  std::vector<std::string> paths;
  size_t used = 0;
  const std::string& next(const std::string& where) {
    if (used >= paths.size())
      throw Error(ErrorKind::mismatch, where + ": more " + std::string(tag) + " marks than " + (kind == "image" ? "pictures" : "clips") + " (" + std::to_string(paths.size()) + ")");
    return paths[used++];
  }
};

std::vector<Pool> pools_of(const Json& item, const std::string& where) {
  return {{"image", kTag, paths_of(item, "image", where)}, {"video", kVideoTag, paths_of(item, "video", where)}};
}

// A mark in a turn's text stands for the next picture or clip; the line break that separates it from the words goes with it.
Json turn_content(std::string_view text, std::vector<Pool>& pools, const std::string& where) {
  Json content = Json::array();
  auto add = [&](std::string_view piece) {
    piece = trim(piece);
    if (!piece.empty()) content.push(words(piece));
  };
  while (true) {
    Pool* first = nullptr;
    size_t at = text.npos;
    for (Pool& pool : pools) {
      if (const size_t found = text.find(pool.tag); found < at) at = found, first = &pool;
    }
    if (!first) break;
    add(text.substr(0, at));
    content.push(media_item(first->kind, first->next(where)));
    text.remove_prefix(at + first->tag.size());
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
  std::vector<Pool> pools = pools_of(item, where);
  Json messages = Json::array();
  const auto& turns = item.at("conversations", where).as_array(where + ": conversations");
  std::vector<bool> marked;
  for (const Pool& pool : pools) {
    marked.push_back(std::any_of(turns.begin(), turns.end(), [&](const Json& turn) { return turn.get_string("value", "").find(pool.tag) != std::string::npos; }));
  }
  for (const Json& turn : turns) {
    const std::string from = turn.at("from", where).as_string(where + ": from"),
                      value = turn.at("value", where).as_string(where + ": value");
    if (from == "human" || from == "user") {
      Json content = Json::array();
      for (size_t p = 0; p < pools.size(); ++p) {
        while (!marked[p] && pools[p].used < pools[p].paths.size()) content.push(media_item(pools[p].kind, pools[p].next(where)));
      }
      Json rest = turn_content(value, pools, where);
      for (Json& piece : rest.items()) content.push(std::move(piece));
      messages.push(message("user", std::move(content)));
    } else if (from == "gpt" || from == "assistant" || from == "system") {
      messages.push(message(from == "system" ? "system" : "assistant", std::string(trim(value))));
    } else {
      throw Error(ErrorKind::bad_file, where + ": from: \"" + from + "\" is neither human, gpt nor system");
    }
  }
  for (const Pool& pool : pools) {
    if (pool.used == pool.paths.size()) continue;
    throw Error(ErrorKind::mismatch, where + ": " + std::to_string(pool.paths.size()) + (pool.kind == "image" ? " pictures" : " clips") + ", but " +
                                         std::to_string(pool.used) + " " + std::string(pool.tag) + " marks");
  }
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
  const std::vector<std::string> pictures = paths_of(item, "image", where);
  Json content = Json::array(), messages = Json::array();
  for (const std::string& path : pictures) content.push(media_item("image", path));
  content.push(words(asked));
  messages.push(message("user", pictures.empty() ? Json(asked) : std::move(content)));
  messages.push(message("assistant", std::move(answered)));
  return Conversation::from_json(messages, where);
}

}  // namespace statera
