// Names, exit codes and errno texts of Error.
#include "base/error.h"

#include <system_error>

namespace statera {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage: return "usage";
    case ErrorKind::not_found: return "not_found";
    case ErrorKind::bad_file: return "bad_file";
    case ErrorKind::unsupported: return "unsupported";
    case ErrorKind::io: return "io";
    case ErrorKind::network: return "network";
    case ErrorKind::denied: return "denied";
    case ErrorKind::mismatch: return "mismatch";
    case ErrorKind::memory: return "memory";
    case ErrorKind::interrupted: return "interrupted";
  }
  throw Bug("unnamed ErrorKind");
}

int exit_code(ErrorKind kind) { return kind == ErrorKind::interrupted ? 130 : 2 + static_cast<int>(kind); }

void check(bool cond, std::string_view what, std::source_location at) {
  if (cond) return;
  std::string_view file = at.file_name();
  if (auto slash = file.rfind('/'); slash != file.npos) file.remove_prefix(slash + 1);
  throw Bug(std::string(file) + ":" + std::to_string(at.line()) + ": " + (what.empty() ? "check failed" : std::string(what)));
}

Error io_error(std::string_view path, int code) {
  return Error(ErrorKind::io, std::string(path) + ": " + std::generic_category().message(code));
}

}  // namespace statera
