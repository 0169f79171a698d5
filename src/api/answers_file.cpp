// See answers_file.h.
#include "api/answers_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/file.h"

namespace statera {

AnswersFile::AnswersFile(const std::string& path) : path_(path) {
  std::string text = is_file(path) ? read_file(path, uint64_t{1} << 36) : "";
  size_t begin = 0, number = 0;
  for (size_t end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    std::string where = path + ": line " + std::to_string(++number);
    Json line = Json::parse(std::string_view(text).substr(begin, end - begin), where);
    if (!line.is_object() || !line.has("id")) throw Error(ErrorKind::bad_file, where + ": not an answer (no \"id\")");
    ids_.insert(line.at("id").dump());
  }
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw io_error(path, errno);
  if (begin < text.size() && ::ftruncate(fd_, static_cast<off_t>(begin)) != 0) throw io_error(path, errno);
}

AnswersFile::~AnswersFile() {
  if (fd_ >= 0) {
    ::fdatasync(fd_);
    ::close(fd_);
  }
}

void AnswersFile::append(const Json& line) {
  std::string text = line.dump() + "\n";
  for (std::string_view rest = text; !rest.empty();) {
    ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(path_, errno);
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace statera
