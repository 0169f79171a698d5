// Splitting files into entries.
#include "data/records.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/strings.h"
#include "data/unpack.h"

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
  std::string how = "read are .parquet, .txt, .jsonl and .json, the last three also with .zst behind";
  if (ends(plain_name(path), kParquet)) how += "; a .parquet is packed inside, unpack it first";
  if (ends(path, ".gz") || ends(path, ".xz") || ends(path, ".bz2")) how += "; unpack it first";
  throw Error(ErrorKind::unsupported, path + ": " + how);
}

}  // namespace

RecordFile::RecordFile(const std::string& path, const ColumnChoice& columns) : path_(path) {
  check_kind(path);
  if (ends(path, kParquet)) {
    table_ = std::make_unique<ParquetRows>(path);
    if (columns) table_->choose(columns(table_->columns()));
    if (size() == 0) throw Error(ErrorKind::bad_file, path + ": holds nothing");
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
  if (size() == 0) throw Error(ErrorKind::bad_file, path + ": holds nothing");
}

RecordFile::RecordFile(std::string text, const std::string& name) : path_(name), held_(std::move(text)) {
  check_kind(name);
  check(!ends(name, kParquet), "a .parquet is read from its file");
  is_json_ = ends(name, ".json");
  is_text_ = ends(name, ".txt");
  index(held_);
}

void RecordFile::index(std::string_view text) {
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

Json RecordFile::item(size_t i) const {
  if (table_) return table_->row(i);
  if (is_json_) return entries_.at(i);
  const auto [offset, length] = spans_.at(i);
  const char* base = held_.empty() ? reinterpret_cast<const char*>(map_.data()) : held_.data();
  const std::string_view text = trim({base + offset, static_cast<size_t>(length)});
  Json out = is_text_ ? Json(text) : Json::parse(text, where(i));
  map_.release(offset, length);
  return out;
}

std::string RecordFile::where(size_t i) const {
  if (table_) return path_ + ": row " + std::to_string(i);
  if (is_json_) return path_ + ": item " + std::to_string(i);
  return path_ + ": line " + std::to_string(lines_.at(i));
}

bool reads_as(std::string_view path, std::string_view ending) { return ends(plain_name(path), ending); }

std::string read_unpacked(const std::string& path, uint64_t most) {
  if (!ends(path, kZst)) return read_file(path, most);
  const MappedFile file = unpack_zstd(path, {.most = most});
  return {reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())};
}

}  // namespace statera
