// Output folders compared in tests: every file's digest, the report's without what belongs to one run only.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "quant/sha256.h"

namespace statera {

inline std::string without_this_run(const std::string& name, std::string text) {
  if (name == "report.json") {
    Json j = Json::parse(text, name);
    j.erase("this_run");
    return j.dump();
  }
  const size_t begin = text.find("<section><h2>This run</h2>"), end = begin == text.npos ? text.npos : text.find("</section>", begin);
  return end == text.npos ? text : text.erase(begin, end - begin);
}

inline std::map<std::string, std::string> output_digests(const std::string& folder) {
  namespace fs = std::filesystem;
  std::map<std::string, std::string> out;
  for (const auto& e : fs::recursive_directory_iterator(folder)) {
    if (!e.is_regular_file()) continue;
    const std::string name = fs::relative(e.path(), folder).string(), path = e.path().string();
    out[name] = name.starts_with("report.") ? sha256(without_this_run(name, read_file(path))) : sha256_file(path);
  }
  return out;
}

}  // namespace statera
