// Dispatch and the loop over blocks of 16 rows.
#include "kernels/hgemm/hgemm.h"

#include <algorithm>

#include "kernels/cpu.h"
#include "kernels/tile/tile.h"

namespace statera::kernels::hgemm {
namespace {

static_assert(kRowBlock == tile::kRowBlock);

// For amx: what tiles do not multiply.
const Table& table() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }

Rows block_rows(const Matrix& w, int64_t block) {
  const int64_t n = block * kRowBlock;
  return {static_cast<const uint8_t*>(w.data) + n * w.ldw * size_of(w.type), w.type, w.ldw, static_cast<int>(std::min<int64_t>(kRowBlock, w.n - n))};
}

struct Source {
  const Table& table;
  const Matrix& w;
};

void fill(const void* source, int64_t block, int64_t k_begin, int64_t count, float* out) noexcept {
  const auto& s = *static_cast<const Source*>(source);
  s.table.convert(block_rows(s.w, block), k_begin, count, out);
}

void fill_pairs(const void* source, int64_t block, int64_t k_begin, int64_t count, uint32_t* out) noexcept {
  const auto& s = *static_cast<const Source*>(source);
  s.table.pairs(block_rows(s.w, block), k_begin, count, out);
}

}  // namespace

void matmul(const float* x, int64_t ldx, int64_t m, const Matrix& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
            int64_t n_end) noexcept {
  const Table& t = table();
  if (m > kMaxDecodeRows) {
    const Source source{t, w};
    tile::run(x, ldx, m, w.k, {fill, &source, w.type == Type::bf16 ? fill_pairs : nullptr}, bias, y, ldy, n_begin, n_end);
    return;
  }
  if (m <= 0) return;
  alignas(64) float out[kMaxDecodeRows * kRowBlock];
  for (int64_t n = n_begin; n < n_end; n += kRowBlock) {
    const Rows rows = block_rows(w, n / kRowBlock);
    t.decode(x, ldx, static_cast<int>(m), rows, w.k, out);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t c = 0; c < rows.rows; ++c) y[i * ldy + n + c] = out[i * kRowBlock + c] + (bias ? bias[n + c] : 0.0f);
  }
}

}  // namespace statera::kernels::hgemm
