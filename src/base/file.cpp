// POSIX calls behind base/file.h.
#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace statera {
namespace {

struct Fd {
  int fd;
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
};

int open_regular(const std::string& path, struct stat& st) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) throw Error(ErrorKind::not_found, path + ": no such file");
    throw io_error(path, errno);
  }
  if (::fstat(fd, &st) != 0) {
    int code = errno;
    ::close(fd);
    throw io_error(path, code);
  }
  if (!S_ISREG(st.st_mode)) {
    ::close(fd);
    throw Error(ErrorKind::bad_file, path + ": not a regular file");
  }
  return fd;
}

std::string parent(const std::string& path) {
  auto slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::string read_file(const std::string& path, uint64_t max_bytes) {
  struct stat st{};
  Fd file{open_regular(path, st)};
  if (static_cast<uint64_t>(st.st_size) > max_bytes) {
    throw Error(ErrorKind::bad_file, path + ": " + std::to_string(st.st_size) + " bytes, more than the " + std::to_string(max_bytes) + " allowed here");
  }
  std::string out(static_cast<size_t>(st.st_size), '\0');
  size_t got = 0;
  while (got < out.size()) {
    ssize_t n = ::read(file.fd, out.data() + got, out.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(path, errno);
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  out.resize(got);
  return out;
}

bool is_file(const std::string& path) {
  struct stat st{};
  return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

bool is_directory(const std::string& path) {
  struct stat st{};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

uint64_t file_size(const std::string& path) {
  struct stat st{};
  if (::stat(path.c_str(), &st) != 0) throw io_error(path, errno);
  return static_cast<uint64_t>(st.st_size);
}

void sync_directory(const std::string& path) {
  Fd dir{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (dir.fd >= 0) ::fsync(dir.fd);
}

void write_file_atomic(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

void append_to_file(const std::string& path, std::string_view bytes) {
  const Fd file{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)};
  if (file.fd < 0) throw io_error(path, errno);
  const ssize_t n = ::write(file.fd, bytes.data(), bytes.size());
  if (n != static_cast<ssize_t>(bytes.size())) throw io_error(path, n < 0 ? errno : ENOSPC);
}

struct MappedFile::Mapping {
  std::string path;
  void* base = nullptr;
  uint64_t size = 0;
  ~Mapping() {
    if (base) ::munmap(base, size);
  }
};

MappedFile::MappedFile(const std::string& path) {
  struct stat st{};
  Fd file{open_regular(path, st)};
  auto m = std::make_shared<Mapping>();
  m->path = path;
  m->size = static_cast<uint64_t>(st.st_size);
  if (m->size > 0) {
    void* base = ::mmap(nullptr, m->size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (base == MAP_FAILED) throw io_error(path, errno);
    m->base = base;
  }
  m_ = std::move(m);
}

const std::byte* MappedFile::data() const { return m_ ? static_cast<const std::byte*>(m_->base) : nullptr; }
uint64_t MappedFile::size() const { return m_ ? m_->size : 0; }
const std::string& MappedFile::path() const {
  static const std::string none;
  return m_ ? m_->path : none;
}

namespace {
// Page-aligned part of [offset, offset+length) inside a mapping, as madvise wants it.
void advise(const std::byte* base, uint64_t size, uint64_t offset, uint64_t length, int advice) {
  if (!base || offset >= size) return;
  length = std::min(length, size - offset);
  uint64_t begin = offset & ~uint64_t{4095};
  ::madvise(const_cast<std::byte*>(base) + begin, offset + length - begin, advice);
}
}  // namespace

void MappedFile::release(uint64_t offset, uint64_t length) const { advise(data(), size(), offset, length, MADV_DONTNEED); }
void MappedFile::prefetch(uint64_t offset, uint64_t length) const { advise(data(), size(), offset, length, MADV_WILLNEED); }

void MappedFile::check_not_truncated() const {
  if (m_ && file_size(path()) < size()) throw Error(ErrorKind::io, path() + ": became shorter while it was in use");
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp." + std::to_string(::getpid())) {
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) throw io_error(path_, errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  write_at(position_, data, bytes);
  position_ += bytes;
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    ssize_t n = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(path_, errno).within("writing at byte " + std::to_string(offset));
    from += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  check(fd_ >= 0, "AtomicFile committed twice");
  if (::fsync(fd_) != 0) throw io_error(path_, errno);
  int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    int code = errno;
    ::unlink(temporary_.c_str());
    throw io_error(path_, code);
  }
  sync_directory(parent(path_));
}

}  // namespace statera
