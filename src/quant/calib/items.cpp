// Splitting files into items, and the three spellings of a conversation.
#include "quant/calib/items.h"

#include <algorithm>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

bool ends(std::string_view path, std::string_view suffix) {
  if (path.size() < suffix.size()) return false;
  for (size_t i = 0; i < suffix.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(path[path.size() - suffix.size() + i])) != suffix[i]) return false;
  }
  return true;
}

void check_kind(const std::string& path) {
  for (const char* suffix : {".txt", ".jsonl", ".json"}) {
    if (ends(path, suffix)) return;
  }
  std::string how = "calibration data is read from .txt, .jsonl and .json";
  if (ends(path, ".parquet")) how += "; .parquet is not read yet, export it as .jsonl";
  if (ends(path, ".zst") || ends(path, ".gz")) how += "; compressed files are not read yet, unpack it first";
  throw Error(ErrorKind::unsupported, path + ": " + how);
}

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
  constexpr std::string_view kTag = "<image>";
  Json content = Json::array();
  auto add = [&](std::string_view piece) {
    piece = trim(piece);
    if (!piece.empty()) content.push(words(piece));
  };
  for (size_t at; (at = text.find(kTag)) != text.npos; text.remove_prefix(at + kTag.size())) {
    add(text.substr(0, at));
    if (used >= pictures.size()) throw Error(ErrorKind::bad_file, where + ": more <image> marks than pictures (" + std::to_string(pictures.size()) + ")");
    content.push(picture(pictures[used++]));
  }
  add(text);
  return content;
}

// {"image": path or paths, "conversations": [{"from": "human", "value": "<image>\n..."}, ...]} as ShareGPT4V and LLaVA store it.
Conversation llava(const Json& item, const std::string& where) {
  const std::vector<std::string> pictures = pictures_of(item, where);
  Json messages = Json::array();
  size_t used = 0;
  bool marked = false;
  const auto& turns = item.at("conversations", where).as_array(where + ": conversations");
  for (const Json& turn : turns) marked |= turn.get_string("value", "").find("<image>") != std::string::npos;
  for (const Json& turn : turns) {
    const std::string from = turn.at("from", where).as_string(where + ": from"), value = turn.at("value", where).as_string(where + ": value");
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
    throw Error(ErrorKind::bad_file, where + ": " + std::to_string(pictures.size()) + " pictures, but " + std::to_string(used) + " <image> marks");
  return Conversation::from_json(messages, where);
}

}  // namespace

ItemFile::ItemFile(const std::string& path) : path_(path) {
  check_kind(path);
  is_json_ = ends(path, ".json");
  if (is_json_) {
    held_ = read_file(path, 1u << 30);
    index(held_);
    held_.clear();
  } else {
    map_ = MappedFile(path);
    is_text_ = ends(path, ".txt");
    index({reinterpret_cast<const char*>(map_.data()), static_cast<size_t>(map_.size())});
  }
  if (size() == 0) throw Error(ErrorKind::bad_file, path + ": holds nothing to calibrate with");
}

ItemFile::ItemFile(std::string text, const std::string& name) : path_(name), held_(std::move(text)) {
  check_kind(name);
  is_json_ = ends(name, ".json");
  is_text_ = ends(name, ".txt");
  index(held_);
}

void ItemFile::index(std::string_view text) {
  if (is_json_) {
    Json top = Json::parse(text, path_);
    const bool list = top.is_array() && !top.as_array().empty() && !top.as_array()[0].has("role");
    if (list) {
      entries_ = std::move(top.items());
    } else if (!top.is_array() || !top.as_array().empty()) {
      entries_.push_back(std::move(top));  // one conversation, or one object
    }
    return;
  }
  uint64_t line = 0, begin = 0, first = 0;
  bool open = false;
  auto close = [&](uint64_t end) {
    if (open) {
      spans_.emplace_back(begin, end - begin);
      lines_.push_back(first);
    }
    open = false;
  };
  for (uint64_t at = 0; at < text.size();) {
    uint64_t end = std::min<uint64_t>(text.find('\n', at), text.size());
    ++line;
    const bool blank = trim(text.substr(at, end - at)).empty();
    if (blank) {
      close(at);
    } else {
      if (!is_text_) close(at);
      if (!open) begin = at, first = line;
      open = true;
    }
    at = end + 1;
  }
  close(text.size());
}

Json ItemFile::item(size_t i) const {
  if (is_json_) return entries_.at(i);
  const auto [offset, length] = spans_.at(i);
  const char* base = held_.empty() ? reinterpret_cast<const char*>(map_.data()) : held_.data();
  const std::string_view text = trim({base + offset, static_cast<size_t>(length)});
  if (is_text_) return Json(text);
  return Json::parse(text, where(i));
}

std::string ItemFile::where(size_t i) const {
  if (is_json_) return path_ + ": item " + std::to_string(i);
  return path_ + ": line " + std::to_string(lines_.at(i));
}

std::variant<std::string, Conversation> read_item(const Json& item, const std::string& field, const std::string& where) {
  if (item.is_string()) return item.as_string();
  if (item.is_array()) return Conversation::from_json(item, where);
  if (!field.empty()) return item.at(field, where).as_string(where + ": " + field);
  if (item.has("messages")) return Conversation::from_json(item.at("messages"), where);
  if (item.has("conversations")) return llava(item, where);
  if (item.has("text")) return item.at("text").as_string(where + ": text");
  std::vector<std::string> names;
  if (item.is_object()) {
    for (const auto& [name, value] : item.as_object()) names.push_back(name);
  }
  throw Error(ErrorKind::bad_file, where + ": neither text, messages nor conversations" +
                                       (names.empty() ? "" : " (it has " + join(names, ", ") + "; name the text's field as PATH:FIELD)"));
}

}  // namespace statera
