// AnswersFile: JSONL answers appended in order, surviving a kill at any byte.
#pragma once

#include <set>
#include <string>

#include "base/json.h"

namespace statera {

class AnswersFile {
 public:
  // Opens or makes the file; removes a last line without its newline. Error(bad_file) for a complete line that is no object with "id".
  explicit AnswersFile(const std::string& path);
  ~AnswersFile();
  AnswersFile(const AnswersFile&) = delete;
  AnswersFile& operator=(const AnswersFile&) = delete;
  // Ids of the lines that were there, as JSON text ("7", "\"a\"").
  const std::set<std::string>& ids() const { return ids_; }
  // One line, given to the system at once. Error(io) naming the file.
  void append(const Json& line);

 private:
  std::string path_;
  std::set<std::string> ids_;
  int fd_ = -1;
};

}  // namespace statera
