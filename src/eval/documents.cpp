// See documents.h.
#include "eval/documents.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/strings.h"
#include "data/records.h"

namespace statera {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{4} << 30;

std::string text_of(const Json& entry, const std::string& field, const std::string& where) {
  if (entry.is_string()) return entry.as_string();
  const std::string name = field.empty() ? "text" : field;
  const Json* text = entry.get(name);
  if (text) return text->as_string(where + ": " + name);
  std::vector<std::string> names;
  if (entry.is_object()) {
    for (const auto& member : entry.as_object()) names.push_back(member.first);
  }
  throw Error(ErrorKind::bad_file, where + ": no \"" + name + "\"" +
                                       (names.empty() ? "" : " (it has " + join(names, ", ") + "; name the text's field as PATH:FIELD)"));
}

// The one column of a .parquet that is read.
std::vector<std::string> column_of(const std::vector<ParquetColumn>& columns, const std::string& field, const std::string& path) {
  const std::string name = field.empty() ? "text" : field;
  std::vector<std::string> names;
  for (const ParquetColumn& c : columns) {
    if (c.name == name && !c.is_text) throw Error(ErrorKind::bad_file, path + ": column " + name + " is " + c.type + ", not text");
    if (c.name == name) return {name};
    names.push_back(c.name);
  }
  throw Error(ErrorKind::bad_file, path + ": has no column " + name + did_you_mean(name, names) + " (it has " + join(names, ", ") +
                                       "; name the text's column as PATH:FIELD)");
}

}  // namespace

std::vector<std::pair<int64_t, std::string_view>> json_lines(std::string_view text) {
  std::vector<std::pair<int64_t, std::string_view>> out;
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = trim(text.substr(0, end));
    ++number;
    if (!line.empty()) out.emplace_back(number, line);
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
  }
  return out;
}

std::vector<Document> read_documents(const std::string& path, const std::string& field) {
  std::vector<Document> out;
  auto add = [&](std::string text, std::string where) {
    if (!trim(text).empty()) out.push_back({std::move(text), std::move(where)});
  };
  if (!is_file(path)) throw Error(ErrorKind::not_found, path + ": no such file");
  if (reads_as(path, ".txt")) {
    add(read_unpacked(path, kMaxBytes), path);
  } else {
    const RecordFile file(path, [&](const std::vector<ParquetColumn>& columns) { return column_of(columns, field, path); });
    for (size_t i = 0; i < file.size(); ++i) add(text_of(file.item(i), field, file.where(i)), file.where(i));
  }
  if (out.empty()) throw Error(ErrorKind::bad_file, path + ": holds no text");
  return out;
}

std::pair<std::string, std::string> split_field(const std::string& given) {
  const size_t colon = given.rfind(':');
  if (is_file(given) || colon == given.npos || given.find('/', colon) != given.npos) return {given, ""};
  return {given.substr(0, colon), given.substr(colon + 1)};
}

}  // namespace statera
