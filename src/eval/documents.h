// Documents: the texts of a data file, for perplexity. A .txt file is one document; of .jsonl each line, of .json each entry of the list, of
// .parquet each row. All but the last also with .zst behind.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace statera {

struct Document {
  std::string text, where;  // "FILE: line 3"
};

// field: the member or column that holds the text ("text" when empty); entries may also be strings. Errors: unsupported for another ending,
// bad_file naming file and line, or when there is no text at all.
std::vector<Document> read_documents(const std::string& path, const std::string& field);

// Lines of a JSONL file that are not blank, with their numbers from 1. Views into `text`.
std::vector<std::pair<int64_t, std::string_view>> json_lines(std::string_view text);

// "PATH:FIELD" -> both; FIELD is empty when PATH is a file as it stands or has no colon.
std::pair<std::string, std::string> split_field(const std::string& given);

}  // namespace statera
