// Splitting files into items, and telling what an item is.
#include "quant/calib/items.h"

#include <algorithm>

#include "base/error.h"
#include "base/strings.h"
#include "quant/calib/llava.h"
#include "quant/calib/unpack.h"

namespace statera {
namespace {

bool ends(std::string_view path, std::string_view suffix) {
  if (path.size() < suffix.size()) return false;
  for (size_t i = 0; i < suffix.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(path[path.size() - suffix.size() + i])) != suffix[i]) return false;
  }
  return true;
}

constexpr std::string_view kZst = ".zst", kParquet = ".parquet";
constexpr uint64_t kMostJson = 1u << 30;       // a .json is parsed as a whole
constexpr uint64_t kReleaseEvery = 16u << 20;  // pages of a file of lines do not stay in memory

// The name that says how the content reads: without .zst.
std::string_view plain_name(std::string_view path) { return ends(path, kZst) ? path.substr(0, path.size() - kZst.size()) : path; }

void check_kind(const std::string& path) {
  if (ends(path, kParquet)) return;
  for (const char* suffix : {".txt", ".jsonl", ".json"}) {
    if (ends(plain_name(path), suffix)) return;
  }
  std::string how = "calibration data is read from .parquet, .txt, .jsonl and .json, the last three also with .zst behind";
  if (ends(plain_name(path), kParquet)) how += "; a .parquet is packed inside, unpack it first";
  if (ends(path, ".gz") || ends(path, ".xz") || ends(path, ".bz2")) how += "; unpack it first";
  throw Error(ErrorKind::unsupported, path + ": " + how);
}

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
std::vector<std::string> columns_for(const ParquetRows& table, const ItemReading& how, const std::string& path) {
  std::vector<std::string> names, chosen;
  for (const ParquetColumn& c : table.columns()) names.push_back(c.name);
  const auto expect = [&](const ParquetColumn& c, bool fits, const std::string& what) {
    if (!fits) throw Error(ErrorKind::bad_file, path + ": column " + c.name + " is " + c.type + ", not " + what);
    chosen.push_back(c.name);
  };
  const auto has = [&](std::string_view name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  for (const ParquetColumn& c : table.columns()) {
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

ItemFile::ItemFile(const std::string& path, const ItemReading& how) : path_(path) {
  check_kind(path);
  if (ends(path, kParquet)) {
    table_ = std::make_unique<ParquetRows>(path);
    table_->choose(columns_for(*table_, how, path));
    if (size() == 0) throw Error(ErrorKind::bad_file, path + ": holds nothing to calibrate with");
    return;
  }
  is_json_ = ends(plain_name(path), ".json");
  is_text_ = ends(plain_name(path), ".txt");
  if (ends(path, kZst)) {
    map_ = is_json_ ? unpack_zstd(path, {.most = kMostJson}) : unpack_zstd(path);
  } else {
    map_ = MappedFile(path);
    if (is_json_ && map_.size() > kMostJson)
      throw Error(ErrorKind::bad_file,
                  path + ": larger than " + human_bytes(static_cast<double>(kMostJson)) + "; lines of a .jsonl are read one at a time");
  }
  index({reinterpret_cast<const char*>(map_.data()), static_cast<size_t>(map_.size())});
  if (is_json_) map_ = {};
  if (size() == 0) throw Error(ErrorKind::bad_file, path + ": holds nothing to calibrate with");
}

ItemFile::ItemFile(std::string text, const std::string& name) : path_(name), held_(std::move(text)) {
  check_kind(name);
  check(!ends(name, kParquet), "a .parquet is read from its file");
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
  uint64_t released = 0;
  for (uint64_t at = 0; at < text.size();) {
    if (at - released >= kReleaseEvery) {
      map_.release(released, at - released);
      released = at;
    }
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
  map_.release(0, map_.size());
}

Json ItemFile::item(size_t i) const {
  if (table_) return table_->row(i);
  if (is_json_) return entries_.at(i);
  const auto [offset, length] = spans_.at(i);
  const char* base = held_.empty() ? reinterpret_cast<const char*>(map_.data()) : held_.data();
  const std::string_view text = trim({base + offset, static_cast<size_t>(length)});
  Json out = is_text_ ? Json(text) : Json::parse(text, where(i));
  map_.release(offset, length);
  return out;
}

std::string ItemFile::where(size_t i) const {
  if (table_) return path_ + ": row " + std::to_string(i);
  if (is_json_) return path_ + ": item " + std::to_string(i);
  return path_ + ": line " + std::to_string(lines_.at(i));
}

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
