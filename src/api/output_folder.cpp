// See output_folder.h: OUT.partial.PID, synced and renamed.
#include "api/output_folder.h"

#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace statera {

OutputFolder::OutputFolder(std::string out, bool overwrite, std::string marker, std::string what)
    : out_(std::move(out)), overwrite_(overwrite) {
  while (out_.size() > 1 && out_.ends_with('/')) out_.pop_back();
  std::error_code code;
  const bool there = std::filesystem::exists(out_, code);
  const bool empty = there && std::filesystem::is_directory(out_, code) && std::filesystem::is_empty(out_, code);
  if (there && !empty && (!overwrite || !is_file(out_ + "/" + marker))) {
    throw Error(ErrorKind::usage, out_ + ": exists already" + (overwrite ? " and is no " + what + " folder" : ""));
  }
  path_ = out_ + ".partial." + std::to_string(::getpid());
  std::filesystem::remove_all(path_, code);
  if (!std::filesystem::create_directories(path_, code)) throw io_error(path_, code.value());
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  if (!done_) std::filesystem::remove_all(path_, ignored);
}

void OutputFolder::commit() {
  std::error_code code;
  sync_directory(path_);
  if (overwrite_ || is_directory(out_)) std::filesystem::remove_all(out_, code);
  std::filesystem::rename(path_, out_, code);
  if (code) throw io_error(out_, code.value());
  done_ = true;
  const auto parent = std::filesystem::path(out_).parent_path().string();
  sync_directory(parent.empty() ? "." : parent);
}

}  // namespace statera
