// See row_spill.h.
#include "eval/row_spill.h"

#include <ATen/ops/empty.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"

namespace statera {

RowSpill::RowSpill(const std::string& folder) : folder_(folder) {
  std::error_code none;
  if (folder_.empty()) folder_ = std::filesystem::temp_directory_path(none).string();
  if (!is_directory(folder_)) throw Error(ErrorKind::not_found, folder_ + ": no such folder");
  std::string path = folder_ + "/statera_spill_XXXXXX";
  fd_ = ::mkstemp(path.data());
  if (fd_ < 0) throw io_error(folder_, errno);
  ::unlink(path.c_str());
}

RowSpill::~RowSpill() { ::close(fd_); }

void RowSpill::append(const at::Tensor& rows) {
  const at::Tensor whole = rows.contiguous();
  const uint64_t size = whole.nbytes();
  struct statvfs disk {};
  if (::fstatvfs(fd_, &disk) == 0) {
    const uint64_t room = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
    if (room < size)
      throw Error(ErrorKind::io, folder_ + ": " + human_bytes(static_cast<double>(size)) + " more are needed for temporary results, " +
                                     human_bytes(static_cast<double>(room)) + " are free");
  }
  const char* data = static_cast<const char*>(whole.const_data_ptr());
  for (uint64_t done = 0; done < size;) {
    const ssize_t n = ::pwrite(fd_, data + done, size - done, static_cast<off_t>(bytes_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(folder_, errno);
    done += static_cast<uint64_t>(n);
  }
  entries_.push_back({bytes_, whole.sizes().vec(), whole.scalar_type()});
  bytes_ += size;
}

at::Tensor RowSpill::read(size_t i) const {
  const Entry& entry = entries_.at(i);
  at::Tensor out = at::empty(entry.shape, at::TensorOptions(entry.dtype));
  char* data = static_cast<char*>(out.mutable_data_ptr());
  for (uint64_t done = 0, size = out.nbytes(); done < size;) {
    const ssize_t n = ::pread(fd_, data + done, size - done, static_cast<off_t>(entry.offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw io_error(folder_, n < 0 ? errno : EIO);
    done += static_cast<uint64_t>(n);
  }
  return out;
}

}  // namespace statera
