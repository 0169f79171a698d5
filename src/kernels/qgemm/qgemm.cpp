// Dispatch and the loop over blocks.
#include "kernels/qgemm/qgemm.h"

#include <algorithm>

#include "kernels/cpu.h"
#include "kernels/tile/tile.h"

namespace statera::kernels::qgemm {
namespace {

static_assert(kRowBlock == tile::kRowBlock);
constexpr int64_t kMaxSums = 8192;  // f32 on the stack

const Table& table() {
  switch (active_isa()) {
    case Isa::scalar: return kScalar;
    case Isa::avx2: return kAvx2;
    case Isa::avx512: return kAvx512;
    case Isa::amx: return kAvx512;  // weights meet f32 activations: tiles have nothing to offer
  }
  return kScalar;
}

struct Source {
  const Table& table;
  const Layout& layout;
  const uint8_t* packed;
};

void fill(const void* source, int64_t block, int64_t k_begin, int64_t count, float* out) noexcept {
  const auto& s = *static_cast<const Source*>(source);
  s.table.dequantize(s.layout, s.packed + block * s.layout.block_bytes, k_begin, count, out);
}

}  // namespace

void matmul(const float* x, int64_t ldx, int64_t m, const void* packed, const Spec& spec, const float* bias, float* y, int64_t ldy,
            int64_t n_begin, int64_t n_end) noexcept {
  const Table& t = table();
  const Layout l = layout_of(spec);
  const auto* blocks = static_cast<const uint8_t*>(packed);
  if (m > kMaxDecodeRows) {
    const Source source{t, l, blocks};
    tile::run(x, ldx, m, l.k, fill, &source, bias, y, ldy, n_begin, n_end);
    return;
  }
  if (m <= 0) return;
  float sums[kMaxSums];
  const bool with_sums = l.zeros && m * l.groups <= kMaxSums;  // else zero points are subtracted weight by weight
  if (with_sums) t.group_sums(l, x, ldx, static_cast<int>(m), sums);
  alignas(64) float out[kMaxDecodeRows * kRowBlock];
  for (int64_t n = n_begin; n < n_end; n += kRowBlock) {
    t.decode(l, blocks + n / kRowBlock * l.block_bytes, x, ldx, static_cast<int>(m), with_sums ? sums : nullptr, out);
    const int64_t columns = std::min<int64_t>(kRowBlock, n_end - n);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t c = 0; c < columns; ++c) y[i * ldy + n + c] = out[i * kRowBlock + c] + (bias ? bias[n + c] : 0.0f);
  }
}

void dequantize(const Spec& spec, const void* packed, float* out, int64_t n_begin, int64_t n_end) {
  const Table& t = table();
  const Layout l = layout_of(spec);
  float w[32 * kRowBlock];
  for (int64_t n = n_begin; n < n_end;) {
    const int64_t block = n / kRowBlock, stop = std::min(n_end, (block + 1) * kRowBlock);
    for (int64_t k = 0; k < l.k; k += 32) {
      t.dequantize(l, static_cast<const uint8_t*>(packed) + block * l.block_bytes, k, std::min<int64_t>(32, l.k - k), w);
      for (int64_t row = n; row < stop; ++row)
        for (int64_t i = 0; i < std::min<int64_t>(32, l.k - k); ++i)
          out[(row - n_begin) * l.k + k + i] = w[i * kRowBlock + row - block * kRowBlock];
    }
    n = stop;
  }
}

}  // namespace statera::kernels::qgemm
