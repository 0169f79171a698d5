// Telling what an item is, and which columns may hold it.
#include "quant/calib/items.h"

#include <algorithm>

#include "base/error.h"
#include "base/strings.h"
#include "quant/calib/llava.h"

namespace statera {
namespace {

std::string neither(const std::string& where, const std::vector<std::string>& names) {
  return where + ": neither text, messages nor conversations" +
         (names.empty() ? "" : " (it has " + join(names, ", ") + "; name the text's field as PATH:FIELD)");
}

std::vector<std::string> names_of(const Json& item) {
  std::vector<std::string> names;
  if (item.is_object()) {
    for (const auto& [name, value] : item.as_object()) names.push_back(name);
  }
  return names;
}

// The columns that read_item() may look at, which must be of its types.
std::vector<std::string> columns_for(const std::vector<ParquetColumn>& columns, const ItemReading& how, const std::string& path) {
  std::vector<std::string> names, chosen;
  for (const ParquetColumn& c : columns) names.push_back(c.name);
  const auto expect = [&](const ParquetColumn& c, bool fits, const std::string& what) {
    if (!fits) throw Error(ErrorKind::bad_file, path + ": column " + c.name + " is " + c.type + ", not " + what);
    chosen.push_back(c.name);
  };
  const auto has = [&](std::string_view name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  for (const ParquetColumn& c : columns) {
    if (!how.field.empty()) {
      if (c.name == how.field) expect(c, c.is_text, "text");
    } else if (c.name == "messages") {
      expect(c, c.is_turns, "a list of {role, content}");
    } else if (c.name == "conversations") {
      expect(c, c.is_turns, "a list of {from, value}");
    } else if (c.name == "image" && has("conversations")) {
      expect(c, c.is_pictures, "a path, bytes, {bytes, path} or a list of these");
    } else if (c.name == "text") {
      expect(c, c.is_text, "text");
    }
  }
  if (!chosen.empty()) return chosen;
  if (how.field.empty()) throw Error(ErrorKind::bad_file, neither(path, names));
  throw Error(ErrorKind::bad_file, path + ": has no column " + how.field + did_you_mean(how.field, names) + " (it has " + join(names, ", ") + ")");
}

}  // namespace

ItemFile::ItemFile(const std::string& path, const ItemReading& how)
    : RecordFile(path, [&](const std::vector<ParquetColumn>& columns) { return columns_for(columns, how, path); }) {}

std::variant<std::string, Conversation> read_item(const Json& item, const ItemReading& how, const std::string& where) {
  if (item.is_string()) return item.as_string();
  if (how.last_turn && (item.is_array() || item.has("messages")))
    throw Error(ErrorKind::unsupported,
                where + ": --parity qwen2vl-last-turn reads conversations of ShareGPT4V and LLaVA only, not messages");
  if (item.is_array()) return Conversation::from_json(item, where);
  if (!how.field.empty()) {
    if (!item.get(how.field)) throw Error(ErrorKind::bad_file, where + ": has no " + how.field + did_you_mean(how.field, names_of(item)));
    return item.at(how.field).as_string(where + ": " + how.field);
  }
  if (item.has("messages")) return Conversation::from_json(item.at("messages"), where);
  if (item.has("conversations")) return how.last_turn ? llava_last_turn(item, where) : llava_conversation(item, where);
  if (item.has("text")) return item.at("text").as_string(where + ": text");
  throw Error(ErrorKind::bad_file, neither(where, names_of(item)));
}

}  // namespace statera
