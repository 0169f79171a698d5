// video: exact frames of a clip by index, through FFmpeg. Reads only from a file or from bytes already here: no protocol of
// FFmpeg's is reachable, and only container formats that hold their own data are accepted (no playlists).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace statera {

struct VideoInfo {
  int64_t frames = 0;             // frames shown, counted in the container
  double fps = 0;                 // average rate
  int64_t height = 0, width = 0;  // after rotation
};

class VideoFile {
 public:
  // Opens and counts (reads the container once, decodes nothing). Errors naming it: not_found, bad_file (no clip, damaged, or more
  // than max_pixels a frame), unsupported (no decoder).
  static VideoFile open(const std::string& path, int64_t max_pixels = 178'956'970);
  static VideoFile from_bytes(std::string bytes, const std::string& name, int64_t max_pixels = 178'956'970);
  VideoFile(VideoFile&&) noexcept;
  VideoFile& operator=(VideoFile&&) noexcept;
  ~VideoFile();

  const VideoInfo& info() const;
  const std::string& name() const;
  // Calls sink(i, frame) for every i with the frame number indices[i], u8 [H,W,3], turned as the container says; in any order of
  // indices, equal ones too. Decodes once from the start, each needed frame converted once. Error(bad_file) when the stream ends early.
  void read(const std::vector<int64_t>& indices, const std::function<void(int64_t i, const at::Tensor& frame)>& sink);

 private:
  struct Impl;
  explicit VideoFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> x_impl;
};

// FORCE_QWENVL_VIDEO_READER of the environment: torchcodec, decord and torchvision are accepted (all mean the one reader here);
// anything else is Error(usage).
void check_forced_video_reader();

}  // namespace statera
