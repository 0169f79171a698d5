// hgemm: y = x W^T with f32 x and W row-major in bf16, f16 or f32, as it lies in a mapped checkpoint, or in integers, as keys lie in a cache:
// nothing is packed or converted ahead, so decoding reads each weight once from memory. Products and sums are f32.
#pragma once

#include <cstdint>

namespace statera::kernels::hgemm {

inline constexpr int kRowBlock = 16;  // ranges of n split at its multiples
inline constexpr int kMaxDecodeRows = 8;

// i8: integers that stand for themselves; a scale is the caller's.
enum class Type : uint8_t { f32, bf16, f16, i8 };
constexpr int64_t size_of(Type type) { return type == Type::f32 ? 4 : type == Type::i8 ? 1 : 2; }

// W [n, k] with rows ldw elements apart. Any alignment that suits the element.
struct Matrix {
  const void* data = nullptr;
  Type type = Type::f32;
  int64_t n = 0, k = 0, ldw = 0;
};

// y[m][n] = sum_k x[m][k] W[n][k] + bias[n] for m in [0, M), n in [n_begin, n_end).
// x [M, ldx >= K], y [M, ldy >= N], bias f32[N] or null; n_begin a multiple of kRowBlock, n_end too or N. Callers check shapes.
// An element does not depend on how the range of n is split. M <= 8 streams the weights once; above, see tile.h.
void matmul(const float* x, int64_t ldx, int64_t m, const Matrix& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
            int64_t n_end) noexcept;

// --- what the ISA files implement; w points at the first of `rows` <= 16 rows -----------------------------------------------
struct Rows {
  const void* data;
  Type type;
  int64_t ldw;
  int rows;
};

struct Table {
  // y[m*16 + row] = x[m] . w[row], m <= kMaxDecodeRows.
  void (*decode)(const float* x, int64_t ldx, int m, const Rows& w, int64_t k, float* y) noexcept;
  // out[i*16 + row] = w[row][k_begin + i], i < count; 0 for rows that are not there. count rounded up to 16 may be written.
  void (*convert)(const Rows& w, int64_t k_begin, int64_t count, float* out) noexcept;
  // Of bf16 rows: out[i*16 + row] = w[row][k_begin + 2 i] in the lower half and the next in the upper one, i < 16; 0 from count on, count <= 32. Null: of a set
  // without tiles beside it.
  void (*pairs)(const Rows& w, int64_t k_begin, int64_t count, uint32_t* out) noexcept;
};
extern const Table kScalar;
extern const Table kAvx2;
extern const Table kAvx512;

}  // namespace statera::kernels::hgemm
