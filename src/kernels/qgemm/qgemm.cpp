// Dispatch and the loop over blocks.
#include "kernels/qgemm/qgemm.h"

#include <algorithm>

#include "kernels/cpu.h"
#include "kernels/tile/tile.h"

namespace statera::kernels::qgemm {
namespace {

static_assert(kRowBlock == tile::kRowBlock);
constexpr int64_t kMaxX = 16384;    // f32 of one stretch
constexpr int64_t kMaxSums = 4096;  // f32

// For amx: what tiles do not multiply.
const Table& table() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }

struct Source {
  const Table& table;
  const Layout& layout;
  const uint8_t* packed;
};

void fill(const void* source, int64_t block, int64_t k_begin, int64_t count, float* out) noexcept {
  const auto& s = *static_cast<const Source*>(source);
  s.table.dequantize(s.layout, s.packed + block * s.layout.block_bytes, k_begin, count, out);
}

// Interleaves the rows of x over [begin, end) as Stretch wants them.
void interleave(const float* x, int64_t ldx, int64_t m, int64_t begin, int64_t end, float* out) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t k = begin; k < end; ++k) out[(k - begin) * m + i] = x[i * ldx + k];
  const int64_t padded = (end - begin + 31) / 32 * 32;
  std::fill(out + (end - begin) * m, out + padded * m, 0.0f);
}

void group_sums(const Layout& l, const Stretch& s, float* sums) {
  for (int64_t k = s.begin; k < s.end; sums += s.m) {
    const int64_t stop = std::min((k / l.group + 1) * l.group, s.end);
    float part[4][kMaxDecodeRows] = {};  // four chains
    for (; k < stop; ++k)
      for (int i = 0; i < s.m; ++i) part[k % 4][i] += s.x[(k - s.begin) * s.m + i];
    for (int i = 0; i < s.m; ++i) sums[i] = (part[0][i] + part[1][i]) + (part[2][i] + part[3][i]);
  }
}

void decode(const Table& t, const Layout& l, const Stretch& s, const uint8_t* blocks, const float* bias, float* y, int64_t ldy,
            int64_t n_begin, int64_t n_end) {
  alignas(64) float out[kMaxDecodeRows * kRowBlock];
  for (int64_t n = n_begin; n < n_end; n += kRowBlock) {
    t.decode(l, blocks + n / kRowBlock * l.block_bytes, s, out);
    const int64_t columns = std::min<int64_t>(kRowBlock, n_end - n);
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t c = 0; c < columns; ++c) {
        float& at = y[i * ldy + n + c];
        at = out[i * kRowBlock + c] + (s.begin > 0 ? at : bias ? bias[n + c] : 0.0f);
      }
  }
}

}  // namespace

void matmul(const float* x, int64_t ldx, int64_t m, const void* packed, const Spec& spec, const float* bias, float* y, int64_t ldy,
            int64_t n_begin, int64_t n_end) noexcept {
  const Table& t = table();
  const Layout l = layout_of(spec);
  const auto* blocks = static_cast<const uint8_t*>(packed);
  if (m > kMaxDecodeRows) {
    const Source source{t, l, blocks};
    tile::run(x, ldx, m, l.k, {fill, &source, nullptr}, bias, y, ldy, n_begin, n_end);
    return;
  }
  if (m <= 0) return;
  alignas(64) float stretch[kMaxX];
  float sums[kMaxSums];
  const int64_t step = kMaxX / m / 32 * 32;
  for (int64_t k = 0; k == 0 || k < l.k; k += step) {
    Stretch s{stretch, static_cast<int>(m), k, std::min(k + step, l.k), nullptr};
    interleave(x, ldx, m, s.begin, s.end, stretch);
    if (l.zeros && m * ((s.end - s.begin) / std::max<int64_t>(l.group, 1) + 2) <= kMaxSums) {
      group_sums(l, s, sums);
      s.sums = sums;
    }
    decode(t, l, s, blocks, bias, y, ldy, n_begin, n_end);
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
