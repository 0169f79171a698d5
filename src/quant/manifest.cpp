// The manifest's text and the hashing behind it.
#include "quant/manifest.h"

#include "base/file.h"
#include "base/threads.h"
#include "quant/sha256.h"

namespace statera {

std::string manifest_text(const Json& run, const std::vector<FileDigest>& files) {
  Json list = Json::array();
  for (const FileDigest& f : files) {
    Json j = Json::object();
    j.set("name", f.name);
    j.set("bytes", f.bytes);
    j.set("sha256", f.sha256);
    list.push(std::move(j));
  }
  Json all = run;
  all.set("files", std::move(list));
  return all.dump(2) + "\n";
}

std::vector<FileDigest> digest_files(const std::string& folder, const std::vector<std::string>& names) {
  std::vector<FileDigest> out(names.size());
  parallel_for(static_cast<int64_t>(names.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const std::string& name = names[static_cast<size_t>(i)];
      out[static_cast<size_t>(i)] = {name, file_size(folder + "/" + name), sha256_file(folder + "/" + name)};
    }
  });
  return out;
}

}  // namespace statera
