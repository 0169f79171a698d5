// See yaml.h.
#include "quant/recipes/yaml.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

constexpr int kMostValues = 100000, kDeepest = 64;

class Reader {
 public:
  explicit Reader(const std::string& where) : where_(where) {}

  Json value(const YAML::Node& node, int depth) {
    if (++values_ > kMostValues) refuse(node, "more than " + std::to_string(kMostValues) + " values");
    if (depth > kDeepest) refuse(node, "nested too deeply");
    if (const std::string& tag = node.Tag(); !tag.empty() && tag != "?" && tag != "!") refuse(node, "tag " + tag + " has no meaning here");
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return Json();
      case YAML::NodeType::Scalar:
        return scalar(node);
      case YAML::NodeType::Sequence: {
        Json out = Json::array();
        for (const YAML::Node& item : node) out.push(value(item, depth + 1));
        return out;
      }
      case YAML::NodeType::Map: {
        Json out = Json::object();
        for (const auto& member : node) {
          if (!member.first.IsScalar()) refuse(member.first, "a key that is no text");
          const std::string& key = member.first.Scalar();
          if (out.has(key)) refuse(member.first, "key \"" + key + "\" stands here twice");
          out.set(key, value(member.second, depth + 1));
        }
        return out;
      }
    }
    return Json();
  }

 private:
  static Json scalar(const YAML::Node& node) {
    const std::string& text = node.Scalar();
    if (node.Tag() == "!") return text;  // quoted
    for (const char* t : {"true", "True", "TRUE"}) {
      if (text == t) return true;
    }
    for (const char* f : {"false", "False", "FALSE"}) {
      if (text == f) return false;
    }
    for (const char* n : {"", "~", "null", "Null", "NULL"}) {
      if (text == n) return Json();
    }
    const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
    const char* end = text.data() + text.size();
    int64_t whole = 0;
    if (auto [at, code] = std::from_chars(begin, end, whole); code == std::errc() && at == end) return whole;
    const bool numeric = text.find_first_not_of("+-.0123456789eE") == text.npos && text.find_first_of("0123456789") != text.npos;
    double number = 0;
    if (auto [at, code] = std::from_chars(begin, end, number); numeric && code == std::errc() && at == end && std::isfinite(number))
      return number;
    return text;
  }

  [[noreturn]] void refuse(const YAML::Node& node, const std::string& reason) const {
    throw Error(ErrorKind::bad_file, where_ + ": line " + std::to_string(node.Mark().line + 1) + ": " + reason);
  }

  const std::string& where_;
  int values_ = 0;
};

}  // namespace

Json parse_yaml(std::string_view text, const std::string& where) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) throw Error(ErrorKind::bad_file, where + ": several documents in one file");
    return documents.empty() ? Json() : Reader(where).value(documents[0], 0);
  } catch (const YAML::Exception& e) {
    throw Error(ErrorKind::bad_file, where + ": line " + std::to_string(e.mark.line + 1) + ": no YAML: " + e.msg);
  }
}

Json read_yaml(const std::string& path) {
  if (!is_file(path)) throw Error(ErrorKind::not_found, path + ": no such file");
  if (file_size(path) > 1u << 20) throw Error(ErrorKind::bad_file, path + ": larger than 1 MiB, no recipe");
  return parse_yaml(read_file(path), path);
}

}  // namespace statera
