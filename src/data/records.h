// RecordFile: the entries of a data file as Json, read one at a time in any order: paragraphs of a .txt, lines of a .jsonl, entries of a
// .json, each also packed with zstd, and rows of a .parquet. What an entry means is its reader's matter.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "data/parquet_rows.h"

namespace statera {

// Which columns of a .parquet are read, of those it has; it may throw. Not given: all.
using ColumnChoice = std::function<std::vector<std::string>(const std::vector<ParquetColumn>&)>;

class RecordFile {
 public:
  // Error(unsupported) for other files, not_found, bad_file (one that holds nothing, too).
  explicit RecordFile(const std::string& path, const ColumnChoice& columns = {});
  // An in-memory file, no .parquet; the ending of `name` says how it reads.
  RecordFile(std::string text, const std::string& name);
  size_t size() const { return table_ ? table_->size() : is_json_ ? entries_.size() : spans_.size(); }
  Json item(size_t i) const;
  std::string where(size_t i) const;  // "FILE: line 3", "FILE: item 2", "FILE: row 0"

 private:
  void index(std::string_view text);
  std::string path_, held_;
  MappedFile map_;
  bool is_json_ = false, is_text_ = false;
  std::vector<std::pair<uint64_t, uint64_t>> spans_;  // offset, length
  std::vector<uint64_t> lines_;                       // line number of each span, from 1
  Json::Array entries_;
  std::unique_ptr<ParquetRows> table_;
};

// Whether a file of this name reads as `ending` (".txt") does, capitals and a .zst behind it aside.
bool reads_as(std::string_view path, std::string_view ending);
// The content of a file, unpacked where .zst is behind its name; Error(bad_file) beyond `most` bytes.
std::string read_unpacked(const std::string& path, uint64_t most);

}  // namespace statera
