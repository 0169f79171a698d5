// Questions about pictures and clips, a JSONL file: {"image": path or list, "video": path or list of frames, "sample_fps"?: number,
// "question": text, "answers": list (or "answer": text), "id"?} a line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace statera {

struct Question {
  Json id;            // the line's "id" (text or integer), else its number
  std::string where;  // "FILE: line 3"
  std::vector<std::string> images;
  Json video;                        // null, the path of a clip, or its frames as a list of paths
  std::optional<double> sample_fps;  // the rate that frames were taken at
  std::string question;
  std::vector<std::string> answers;
};

// Other keys are ignored, blank lines skipped. Answers may be texts, numbers, or objects with "answer" (as VQA stores them). Relative paths
// start at base_dir. Errors name file and line: bad_file for a line that is none of the above or an id that occurs twice, not_found for a
// picture or clip that is not there (URLs are not looked at).
std::vector<Question> read_questions(const std::string& path, const std::string& base_dir);

}  // namespace statera
