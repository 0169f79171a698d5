// See paths.h.
#include "api/paths.h"

#include "base/error.h"
#include "base/file.h"

namespace statera {

std::string folder_of(const std::string& path) {
  auto slash = path.rfind('/');
  return slash == path.npos ? "" : path.substr(0, slash == 0 ? 1 : slash);
}

void require_folder_of(const std::string& path) {
  std::string folder = folder_of(path);
  if (!folder.empty() && !is_directory(folder)) throw Error(ErrorKind::not_found, path + ": the folder is not there");
}

}  // namespace statera
