// See questions.h.
#include "eval/questions.h"

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "eval/documents.h"

namespace statera {
namespace {

std::string answer_of(const Json& value, const std::string& what) {
  if (value.is_object()) return answer_of(value.at("answer", what), what + ".answer");
  if (value.is_number()) return value.dump();
  return value.as_string(what);
}

// A path or a list of them.
std::vector<std::string> paths_of(const Json& line, const char* key) {
  const Json* given = line.get(key);
  if (!given) return {};
  if (given->is_string()) return {given->as_string()};
  std::vector<std::string> out;
  for (const Json& one : given->as_array(key)) out.push_back(one.as_string(key));
  return out;
}

void require_files(const std::vector<std::string>& paths, const std::string& base_dir, const char* what) {
  for (const std::string& given : paths) {
    if (starts_with_any(given, {"data:", "http://", "https://", "file://"})) continue;
    const std::string path = given.starts_with('/') || base_dir.empty() ? given : base_dir + "/" + given;
    if (!is_file(path)) throw Error(ErrorKind::not_found, path + ": no such " + what);
  }
}

Question question_of(const Json& line, int64_t number) {
  if (!line.is_object()) throw Error(ErrorKind::bad_file, "expected an object");
  Question q;
  const Json* id = line.get("id");
  if (id && !id->is_string() && !id->is_int()) throw Error(ErrorKind::bad_file, "id: expected a text or an integer");
  q.id = id ? *id : Json(number);
  q.images = paths_of(line, "image");
  if (const Json* video = line.get("video")) q.video = *video;
  if (const Json* fps = line.get("sample_fps")) q.sample_fps = fps->as_double("sample_fps");
  q.question = line.at("question").as_string("question");
  const Json* answers = line.get("answers");
  if (!answers) answers = line.get("answer");
  if (!answers) throw Error(ErrorKind::bad_file, "neither \"answers\" nor \"answer\"");
  if (answers->is_array()) {
    for (const Json& a : answers->as_array()) q.answers.push_back(answer_of(a, "answers"));
  } else {
    q.answers.push_back(answer_of(*answers, "answer"));
  }
  if (q.answers.empty()) throw Error(ErrorKind::bad_file, "answers: an empty list");
  return q;
}

}  // namespace

std::vector<Question> read_questions(const std::string& path, const std::string& base_dir) {
  const std::string text = read_file(path);
  std::vector<Question> out;
  std::set<std::string> ids;
  for (const auto& [number, line] : json_lines(text)) {
    const std::string where = path + ": line " + std::to_string(number);
    const Json json = Json::parse(line, where);
    Question q = with_context(where, [&, n = number] { return question_of(json, n); });
    q.where = where;
    with_context(where, [&] {
      require_files(q.images, base_dir, "picture");
      require_files(paths_of(json, "video"), base_dir, "clip or frame");
    });
    if (!ids.insert(q.id.dump()).second) throw Error(ErrorKind::bad_file, where + ": id " + q.id.dump() + " occurs twice");
    out.push_back(std::move(q));
  }
  if (out.empty()) throw Error(ErrorKind::bad_file, path + ": holds no question");
  return out;
}

}  // namespace statera
