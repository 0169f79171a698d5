// Packing and the cache blocking around the micro kernels. B lies by blocks of kDepth of k, in them by panels: [block][panel][pairs][kColumns];
// the last block holds fewer pairs. A is packed as it is needed, row by row.
#include "kernels/bgemm/bgemm.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu.h"

namespace statera::kernels::bgemm {
namespace {

constexpr int64_t kPairs = kDepth / 2;
constexpr int64_t kSide = 16;  // of a turned square

const Table& table() {
  static const bool has = cpu_has("avx512_bf16");
  const Table& wide = has ? kAvx512Bf16 : kScalar;
  return table_of(kScalar, kScalar, wide, wide);
}

// Every machine with the set amx has avx512_bf16.
const Micro& micro_kernel() {
  const Table& t = table();
  return table_of(t.micro, t.micro, t.micro, kAmx);
}

int64_t pairs_of(int64_t k) { return (k + 1) / 2; }

// Pairs of rows [first, first + count) of x, count <= 16, of k [k0, k0 + depth), each row by itself: out[r * kPairs + i].
void pack_rows(const Table& t, const Matrix& x, int64_t first, int64_t count, int64_t k0, int64_t depth, uint32_t* out) {
  if (!x.turned) {
    for (int64_t r = 0; r < count; ++r) t.row(x.data + (first + r) * x.ld + k0, depth, out + r * kPairs);
    return;
  }
  alignas(64) uint32_t square[kSide * kSide] = {}, turned[kSide * kSide];
  for (int64_t i = 0; i < pairs_of(depth); i += kSide) {
    const int64_t there = std::min(kSide, pairs_of(depth) - i);
    for (int64_t p = 0; p < there; ++p) {
      const int64_t k = 2 * (i + p);
      const float* even = x.data + (k0 + k) * x.ld + first;
      t.columns(even, k + 1 < depth ? even + x.ld : nullptr, count, square + p * kSide);
    }
    t.turn(square, kSide, turned, kSide);
    for (int64_t r = 0; r < count; ++r) std::memcpy(out + r * kPairs + i, turned + r * kSide, static_cast<size_t>(there) * sizeof(uint32_t));
  }
}

// The same of columns of a panel: out[i * kColumns + r], zeros for rows that are not there.
void pack_columns(const Table& t, const Matrix& x, int64_t first, int64_t count, int64_t k0, int64_t depth, uint32_t* out) {
  if (x.turned) {
    for (int64_t i = 0; i < pairs_of(depth); ++i) {
      const float* even = x.data + (k0 + 2 * i) * x.ld + first;
      t.columns(even, 2 * i + 1 < depth ? even + x.ld : nullptr, count, out + i * kColumns);
      for (int64_t r = count; r < kColumns; ++r) out[i * kColumns + r] = 0;
    }
    return;
  }
  alignas(64) uint32_t rows[kSide * kPairs], turned[kSide * kSide];
  for (int64_t half = 0; half < kColumns; half += kSide) {
    const int64_t there = std::clamp<int64_t>(count - half, 0, kSide);
    std::memset(rows, 0, sizeof rows);
    if (there > 0) pack_rows(t, x, first + half, there, k0, depth, rows);
    for (int64_t i = 0; i < pairs_of(depth); i += kSide) {
      t.turn(rows + i, kPairs, turned, kSide);
      for (int64_t p = 0; p < std::min(kSide, pairs_of(depth) - i); ++p) std::memcpy(out + (i + p) * kColumns + half, turned + p * kSide, sizeof(uint32_t) * kSide);
    }
  }
}

// C [rows, columns <= 32] at y from one block of A and of a panel.
void multiply(const Micro& micro, const uint32_t* a, int64_t rows, const uint32_t* b, int64_t pairs, bool add, float* y, int64_t ldy, int64_t columns) {
  alignas(64) float edge[kMaxMicroRows * kColumns];
  for (int64_t r = 0; r < rows; r += micro.max_rows) {
    const int count = static_cast<int>(std::min<int64_t>(micro.max_rows, rows - r));
    float* to = y + r * ldy;
    if (columns == kColumns) {
      micro.run(a + r * kPairs, count, b, pairs, add, to, ldy);
      continue;
    }
    for (int i = 0; add && i < count; ++i) std::memcpy(edge + i * kColumns, to + i * ldy, static_cast<size_t>(columns) * sizeof(float));
    micro.run(a + r * kPairs, count, b, pairs, add, edge, kColumns);
    for (int i = 0; i < count; ++i) std::memcpy(to + i * ldy, edge + i * kColumns, static_cast<size_t>(columns) * sizeof(float));
  }
}

}  // namespace

bool available() { return &table() != &kScalar; }

void pack(const Matrix& b, int64_t n, int64_t k, uint32_t* packed, int64_t begin, int64_t end) noexcept {
  const Table& t = table();
  for (int64_t k0 = 0; k0 < k; k0 += kDepth) {
    const int64_t depth = std::min(kDepth, k - k0);
    uint32_t* block = packed + panels(n) * kColumns * (k0 / 2);
    for (int64_t p = begin; p < end; ++p)
      pack_columns(t, b, p * kColumns, std::min<int64_t>(kColumns, n - p * kColumns), k0, depth, block + p * kColumns * pairs_of(depth));
  }
}

void matmul(const Matrix& a, int64_t m_begin, int64_t m_end, int64_t k, const uint32_t* packed, int64_t n, float* c, int64_t ldc) noexcept {
  const Table& t = table();
  const Micro& micro = micro_kernel();
  alignas(64) uint32_t rows[kRows * kPairs];
  if (micro.begin) micro.begin();
  for (int64_t m = m_begin; m < m_end; m += kRows) {
    const int64_t count = std::min(kRows, m_end - m);
    if (k == 0) {
      for (int64_t r = 0; r < count; ++r) std::memset(c + (m + r) * ldc, 0, static_cast<size_t>(n) * sizeof(float));
    }
    for (int64_t k0 = 0; k0 < k; k0 += kDepth) {
      const int64_t depth = std::min(kDepth, k - k0);
      for (int64_t r = 0; r < count; r += kSide) pack_rows(t, a, m + r, std::min(kSide, count - r), k0, depth, rows + r * kPairs);
      const uint32_t* block = packed + panels(n) * kColumns * (k0 / 2);
      for (int64_t j = 0; j < n; j += kColumns)
        multiply(micro, rows, count, block + j * pairs_of(depth), pairs_of(depth), k0 > 0, c + m * ldc + j, ldc, std::min<int64_t>(kColumns, n - j));
    }
  }
  if (micro.end) micro.end();
}

}  // namespace statera::kernels::bgemm
