// The manifest's text and the hashing behind it.
#include "quant/manifest.h"

#include <utility>

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

Digests::Digests(std::string folder, std::vector<std::string> names) : folder_(std::move(folder)), names_(std::move(names)), found_(names_.size()) {
  beside_ = std::async(std::launch::async, [this] { take(); });
}

Digests::~Digests() { next_ = names_.size(); }

void Digests::take() {
  for (size_t i; (i = next_++) < names_.size();) {
    const std::string path = folder_ + "/" + names_[i];
    found_[i] = {names_[i], file_size(path), sha256_file(path)};
  }
}

std::vector<FileDigest> Digests::finish() {
  parallel_for(num_threads(), 1, [this](int64_t, int64_t) { take(); });
  beside_.get();
  return std::move(found_);
}

}  // namespace statera
