// bgemm: C = A B^T of f32 matrices whose elements are rounded to bf16 first (to the nearest, halves to even), with sums in f32: what a training
// step multiplies, at twice the rate of f32 where the CPU has AVX512_BF16 and at many times it where it has AMX. Each matrix may lie turned, so that one kernel serves y = x W^T,
// dx = g W and dW = g^T x. Only such CPUs: available() says whether this is one.
#pragma once

#include <cstdint>

namespace statera::kernels::bgemm {

inline constexpr int kColumns = 32;     // of C in a packed panel of B
inline constexpr int64_t kDepth = 256;  // k of a block: a panel's block and the rows of A that meet it stay in the first-level cache
inline constexpr int64_t kRows = 96;    // rows of C that matmul() takes at once: ranges are best split at multiples

// Element (i, k) of an f32 matrix is data[i * ld + k], turned: data[k * ld + i].
struct Matrix {
  const float* data = nullptr;
  int64_t ld = 0;
  bool turned = false;
};

// Whether the active instruction set has bf16 products (avx512 or amx, and avx512_bf16 in the CPU). Without, only tests may go on.
bool available();

inline int64_t panels(int64_t n) { return (n + kColumns - 1) / kColumns; }
// 32-bit words of B [n, k] packed.
inline int64_t packed_size(int64_t n, int64_t k) { return panels(n) * kColumns * ((k + 1) / 2); }

// Panels [begin, end) of B [n, k].
void pack(const Matrix& b, int64_t n, int64_t k, uint32_t* packed, int64_t begin, int64_t end) noexcept;

// C[i][j] = sum_k bf16(A[i][k]) bf16(B[j][k]) for i in [m_begin, m_end), j in [0, n); k as it was packed. c [m, ldc >= n] is written, not added to.
// Needs 64 KiB of stack. Numbers below 2^-126 count as zero. An element's sum does not depend on the range.
void matmul(const Matrix& a, int64_t m_begin, int64_t m_end, int64_t k, const uint32_t* packed, int64_t n, float* c, int64_t ldc) noexcept;

// --- what the ISA files implement -----------------------------------------------------------------------------------------
// A pair is bf16(x[2i]) in the low half of a word and bf16(x[2i + 1]) in the high one.
inline constexpr int kMaxMicroRows = 32;
struct Micro {
  int max_rows;  // <= kMaxMicroRows
  // y[r][0..32) (+)= sum over pairs of a[r * kDepth / 2 + i] . b[32 i ..], r < rows <= max_rows. Of a, max_rows rows are readable.
  void (*run)(const uint32_t* a, int rows, const uint32_t* b, int64_t pairs, bool add, float* y, int64_t ldy) noexcept;
  // Around any number of run() on one thread; null: nothing to do.
  void (*begin)() noexcept;
  void (*end)() noexcept;
};
struct Table {
  // out[i] = the pair of x[2i], x[2i + 1], i < (k + 1) / 2; beyond k zero.
  void (*row)(const float* x, int64_t k, uint32_t* out) noexcept;
  // out[j] = the pair of even[j], odd[j] (null: zeros), j < count.
  void (*columns)(const float* even, const float* odd, int64_t count, uint32_t* out) noexcept;
  // out[j * ldo + i] = in[i * ldi + j], 16 x 16.
  void (*turn)(const uint32_t* in, int64_t ldi, uint32_t* out, int64_t ldo) noexcept;
  Micro micro;
};
extern const Table kScalar;
extern const Table kAvx512Bf16;
extern const Micro kAmx;  // packed by kAvx512Bf16

}  // namespace statera::kernels::bgemm
