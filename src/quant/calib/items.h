// ItemFile: the items of a calibration file (data/records.h), and what an item means: text, messages, a LLaVA conversation. No tokenizer, no
// model.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/json.h"
#include "data/records.h"
#include "text/conversation.h"

namespace statera {

struct ItemReading {
  std::string field = {};  // the member that holds text, when the user named one
  bool last_turn = false;  // llava_last_turn instead of llava_conversation; messages are then Error(unsupported)
};

class ItemFile : public RecordFile {
 public:
  // `how` says which columns of a .parquet are read. The errors of RecordFile; bad_file for columns that do not fit.
  explicit ItemFile(const std::string& path, const ItemReading& how = {});
  ItemFile(std::string text, const std::string& name) : RecordFile(std::move(text), name) {}
};

// Text, or a conversation. Error(bad_file) naming `where` for what is neither.
std::variant<std::string, Conversation> read_item(const Json& item, const ItemReading& how, const std::string& where);

}  // namespace statera
