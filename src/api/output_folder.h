// OutputFolder: a folder written in one go that has its final name only when it is complete, and vanishes otherwise. Not for work that is
// resumed (quant/staging.h).
#pragma once

#include <string>

namespace statera {

class OutputFolder {
 public:
  // `marker`: the file by which an existing folder is known as one that --overwrite may replace ("config.json" of a "checkpoint").
  // Error(usage) when `out` exists and is not empty, and is not to be replaced; io.
  OutputFolder(std::string out, bool overwrite, std::string marker, std::string what);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  // Where to write.
  const std::string& path() const { return path_; }
  void commit();

 private:
  std::string out_, path_;
  bool overwrite_, done_ = false;
};

}  // namespace statera
