// paths: small questions about the files a job is given.
#pragma once

#include <string>

namespace statera {

// The folder of a file; "" for the working folder.
std::string folder_of(const std::string& path);
// Error(not_found) when the folder that `path` would be written to is not there: told before the work, not after it.
void require_folder_of(const std::string& path);

}  // namespace statera
