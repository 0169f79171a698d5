// patchify: see the header. Normalisation is a table of 256 values per channel, so pixels are read and written once.
#include "image/patchify.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "image/format.h"

namespace statera {

std::array<float, 256> Normalization::table(int channel) const {
  std::array<float, 256> out{};
  const size_t c = static_cast<size_t>(channel);
  float m = static_cast<float>(mean[c]), s = static_cast<float>(std[c]);
  if (do_rescale) {
    m *= static_cast<float>(1.0 / rescale_factor);
    s *= static_cast<float>(1.0 / rescale_factor);
  }
  for (int i = 0; i < 256; ++i) {
    float x = static_cast<float>(i);
    if (do_normalize) {
      x = (x - m) / s;
    } else if (do_rescale) {
      x *= static_cast<float>(rescale_factor);
    }
    out[static_cast<size_t>(i)] = x;
  }
  return out;
}

Patches patchify(const at::Tensor& frames, const PatchLayout& layout, const Normalization& norm) {
  check(frames.scalar_type() == at::kByte && frames.size(-1) == 3 && (frames.dim() == 3 || frames.dim() == 4), "patchify: u8 [.., H, W, 3]");
  const at::Tensor source = (frames.dim() == 3 ? frames.unsqueeze(0) : frames).contiguous();
  const int64_t T = source.size(0), H = source.size(1), W = source.size(2);
  const int64_t p = layout.patch_size, tp = layout.temporal_patch_size, m = layout.merge_size;
  check(T > 0, "patchify: no frames");
  if (H % layout.factor() != 0 || W % layout.factor() != 0 || H == 0 || W == 0) {
    throw Error(ErrorKind::mismatch, fmt::format("frames of {}x{} are no multiple of {} (patch {} x merge {})", W, H, layout.factor(), p, m));
  }
  const int64_t gt = (T + tp - 1) / tp, gh = H / p, gw = W / p, row_length = 3 * tp * p * p, per_frame = gh * gw;
  const std::array<std::array<float, 256>, 3> tables = {norm.table(0), norm.table(1), norm.table(2)};
  Patches out{at::empty({gt * per_frame, row_length}, source.options().dtype(at::kFloat)), {gt, gh, gw}};
  const uint8_t* pixels = source.const_data_ptr<uint8_t>();
  float* values = out.values.mutable_data_ptr<float>();
  parallel_for(gt * per_frame, 256, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t t0 = r / per_frame, in_frame = r % per_frame, block = in_frame / (m * m), inner = in_frame % (m * m);
      const int64_t y0 = (block / (gw / m) * m + inner / m) * p, x0 = (block % (gw / m) * m + inner % m) * p;
      float* row = values + r * row_length;
      for (int64_t t = 0; t < tp; ++t) {
        const uint8_t* frame = pixels + std::min(t0 * tp + t, T - 1) * H * W * 3;
        for (int64_t y = 0; y < p; ++y) {
          const uint8_t* line = frame + ((y0 + y) * W + x0) * 3;
          for (int64_t c = 0; c < 3; ++c) {
            float* to = row + ((c * tp + t) * p + y) * p;
            const auto& table = tables[static_cast<size_t>(c)];
            for (int64_t x = 0; x < p; ++x) to[x] = table[line[3 * x + c]];
          }
        }
      }
    }
  });
  return out;
}

}  // namespace statera
