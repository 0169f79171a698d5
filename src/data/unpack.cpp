// The stream from mapped input to the temporary file. The window of a frame is bounded by zstd's own default (128 MiB).
#include "data/unpack.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

constexpr uint64_t kReleaseEvery = 16u << 20;  // pages of the packed file do not stay in memory

class TemporaryFile {
 public:
  TemporaryFile() : path_(std::filesystem::temp_directory_path().string() + "/statera-unpacked-XXXXXX") {
    fd_ = ::mkostemp(path_.data(), O_CLOEXEC);
    if (fd_ < 0) throw io_error(path_, errno);
  }
  ~TemporaryFile() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }
  void write(const char* data, size_t bytes) const {
    while (bytes > 0) {
      const ssize_t n = ::write(fd_, data, bytes);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw io_error(path_, errno);
      data += n;
      bytes -= static_cast<size_t>(n);
    }
  }

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace

MappedFile unpack_zstd(const std::string& path, const UnpackLimits& limits) {
  const MappedFile packed(path);
  const TemporaryFile out;
  const uint64_t most = std::min(limits.most, std::max(limits.free, packed.size() * limits.ratio));
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  check(context != nullptr, "zstd context");
  std::vector<char> piece(ZSTD_DStreamOutSize());
  ZSTD_inBuffer in{packed.data(), static_cast<size_t>(packed.size()), 0};
  uint64_t unpacked = 0, released = 0;
  // 0 after a whole frame; before the first one nothing is whole yet.
  size_t expects = 1;
  for (bool more = true; more;) {
    ZSTD_outBuffer buffer{piece.data(), piece.size(), 0};
    expects = ZSTD_decompressStream(context.get(), &buffer, &in);
    if (ZSTD_isError(expects)) throw Error(ErrorKind::bad_file, path + ": not readable as Zstandard: " + ZSTD_getErrorName(expects));
    unpacked += buffer.pos;
    if (unpacked > most)
      throw Error(ErrorKind::bad_file, path + ": unpacks to more than " + human_bytes(static_cast<double>(most)) + ", " +
                                           std::to_string(most / std::max<uint64_t>(packed.size(), 1)) + " times its size: refused");
    out.write(piece.data(), buffer.pos);
    if (in.pos - released >= kReleaseEvery) {
      packed.release(released, in.pos - released);
      released = in.pos;
    }
    // A full buffer may leave more of the frame inside the decoder than the input shows.
    more = in.pos < in.size || (expects != 0 && buffer.pos == buffer.size);
  }
  if (expects != 0) throw Error(ErrorKind::bad_file, path + ": ends in the middle of a Zstandard frame");
  return MappedFile(out.path());
}

}  // namespace statera
