// open_media: see the header.
#include "image/open_media.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include "base/error.h"
#include "image/format.h"

namespace statera {

at::Tensor open_image(const std::string& source, const FetchOptions& fetch_options, const DecodeOptions& decode) {
  const std::string bytes = fetch(source, fetch_options);
  return decode_image(bytes, decode, source_name(source));
}

VideoFile open_video(const std::string& source, const FetchOptions& fetch_options, const DecodeOptions& decode) {
  if (is_url(source) || is_data_uri(source)) return VideoFile::from_bytes(fetch(source, fetch_options), source_name(source), decode.max_pixels);
  return VideoFile::open(with_context(source_name(source), [&] { return local_path(source, fetch_options); }), decode.max_pixels);
}

at::Tensor stack_frames(const std::vector<at::Tensor>& frames, int64_t count) {
  check(!frames.empty(), "stack_frames");
  std::vector<at::Tensor> all = frames;
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i].sizes() != all[0].sizes()) {
      throw Error(ErrorKind::mismatch, fmt::format("frame {} of a frame list is {}x{}, the first {}x{}", i, all[i].size(1), all[i].size(0),
                                                   all[0].size(1), all[0].size(0)));
    }
  }
  while (static_cast<int64_t>(all.size()) < count) all.push_back(frames.back());
  return at::stack(all);
}

at::Tensor read_frames(VideoFile& video, const std::vector<int64_t>& indices, ImageSize size,
                       const std::function<at::Tensor(const at::Tensor&)>& each) {
  constexpr int64_t kMaxBytes = int64_t{16} << 30;
  const int64_t n = static_cast<int64_t>(indices.size());
  if (n * size.height > kMaxBytes / 3 / size.width) {
    throw Error(ErrorKind::memory, fmt::format("{}: {} frames of {}x{} are too many; take fewer (fps, num_frames) or lower max_pixels",
                                               video.name(), n, size.width, size.height));
  }
  at::Tensor out = at::empty({n, size.height, size.width, 3}, at::kByte);
  // Equal indices come one after another with the same frame: resample it once.
  at::Tensor last_in, last_out;
  video.read(indices, [&](int64_t i, const at::Tensor& frame) {
    if (!last_in.is_same(frame)) {
      last_in = frame;
      last_out = each(frame);
    }
    check(last_out.size(0) == size.height && last_out.size(1) == size.width, "read_frames: size");
    out.select(0, i).copy_(last_out);
  });
  return out;
}

}  // namespace statera
