// open_media: sources to decoded pictures and opened clips, shared by both styles.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "image/decode.h"
#include "image/fetch.h"
#include "image/smart_resize.h"
#include "image/video.h"

namespace statera {

// u8 [H,W,3].
at::Tensor open_image(const std::string& source, const FetchOptions& fetch, const DecodeOptions& decode);
// A path is mapped, everything else fetched first.
VideoFile open_video(const std::string& source, const FetchOptions& fetch, const DecodeOptions& decode);
// Equal-sized frames [H,W,3] to [T,H,W,3], repeating the last up to `count`. Error(mismatch) when sizes differ.
at::Tensor stack_frames(const std::vector<at::Tensor>& frames, int64_t count);
// The frames at `indices`, each through `each` as it is decoded; stacked. Error(memory) when they would exceed 16 GiB.
at::Tensor read_frames(VideoFile& video, const std::vector<int64_t>& indices, ImageSize size,
                       const std::function<at::Tensor(const at::Tensor&)>& each);

}  // namespace statera
