// ItemFile: the items of a calibration file, read one at a time in any order: paragraphs of a .txt, lines of a .jsonl, entries of a
// .json, each also packed with zstd, and rows of a .parquet. What an item means (text, messages, a LLaVA conversation) is decided here too; no
// tokenizer, no model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "quant/calib/parquet_rows.h"
#include "text/conversation.h"

namespace statera {

struct ItemReading {
  std::string field = {};  // the member that holds text, when the user named one
  bool last_turn = false;  // llava_last_turn instead of llava_conversation; messages are then Error(unsupported)
};

class ItemFile {
 public:
  // `how` says which columns of a .parquet are read. Error(unsupported) for other files, not_found, bad_file.
  explicit ItemFile(const std::string& path, const ItemReading& how = {});
  // An in-memory file, no .parquet; the ending of `name` says how it reads.
  ItemFile(std::string text, const std::string& name);
  size_t size() const { return table_ ? table_->size() : is_json_ ? entries_.size() : spans_.size(); }
  Json item(size_t i) const;
  std::string where(size_t i) const;

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

// Text, or a conversation. Error(bad_file) naming `where` for what is neither.
std::variant<std::string, Conversation> read_item(const Json& item, const ItemReading& how, const std::string& where);

}  // namespace statera
