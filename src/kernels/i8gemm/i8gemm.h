// i8gemm: y = x W^T with int8 x (a scale per token) and int8 W (a scale per row), summed exactly in int32.
// Sums wrap modulo 2^32: they are exact while |sum| < 2^31, that is for any K below 131072 (33000 with zero points).
#pragma once

#include <cstddef>
#include <cstdint>

namespace statera::kernels::i8gemm {

inline constexpr int kRowBlock = 16;  // ranges of n split at its multiples

struct Spec {
  int64_t n = 0, k = 0;  // W is [n, k]
  bool zeros = false;    // rows of W have zero points
};

// Size of the packed weights, a multiple of 64; N is padded to 16 and K to 4.
size_t packed_bytes(const Spec& spec);
// w [N,K], scales f32[N], zeros int8[N] (null when !spec.zeros): weight = (w - zero) * scale. 64-byte alignment is best.
void pack(const Spec& spec, const int8_t* w, const float* scales, const int8_t* zeros, void* packed);
// Returns what pack was given, bit for bit.
void unpack(const Spec& spec, const void* packed, int8_t* w, float* scales, int8_t* zeros);

// Dynamic per-token quantization, x [M, ldx] finite f32 -> q [M, ldq >= K], scale f32[M]: scale = max|x| / 127.5 and
// q = x / scale to the nearest, halves to even, within [-128, 127]; a row of zeros gets scale 0 and zeros. Equal on every ISA.
void quantize_rows(const float* x, int64_t ldx, int64_t m, int64_t k, int8_t* q, int64_t ldq, float* scale) noexcept;
// Static quantization with given scales and zero points (null: 0) per token: clamp(round(x / scale[m]) + zero[m], -128, 127).
void quantize_rows_static(const float* x, int64_t ldx, int64_t m, int64_t k, const float* scale, const int32_t* zero, int8_t* q,
                          int64_t ldq) noexcept;

// y[m][n] = sum_k x[m][k] w[n][k] for n in [n_begin, n_end): n_begin a multiple of kRowBlock, n_end too or N. No zero points.
void matmul_i32(const int8_t* x, int64_t ldx, int64_t m, const void* packed, const Spec& spec, int32_t* y, int64_t ldy, int64_t n_begin,
                int64_t n_end) noexcept;
// y[m][n] = (sum_k (x[m][k] - x_zero[m]) (w[n][k] - zero[n])) * x_scale[m] * scale[n] + bias[n]; x_zero and bias may be null.
void matmul(const int8_t* x, int64_t ldx, int64_t m, const float* x_scale, const int32_t* x_zero, const void* packed, const Spec& spec,
            const float* bias, float* y, int64_t ldy, int64_t n_begin, int64_t n_end) noexcept;

// --- what the ISA files implement ---------------------------------------------------------------------------------------
// One block holds 16 rows: scale f32[16], sum of the row int32[16], zero int32[16], 64 free bytes, then
// [ceil(K/4)][16][4] bytes w + 128 (unsigned, as the dot-product instructions want one operand; 128 beyond K).
inline constexpr int64_t kHeaderBytes = 256;
struct Header {
  float scale[kRowBlock];
  int32_t sum[kRowBlock];
  int32_t zero[kRowBlock];
};

struct Table {
  int max_rows;
  // sums[r][16*b + row] = sum_k x[r][k] * (w + 128), r < rows <= max_rows, blocks 1 or 2, `codes` of blocks block_bytes apart.
  void (*dot)(const int8_t* x, int64_t ldx, int rows, int64_t k, const uint8_t* codes, int64_t block_bytes, int blocks,
              int32_t* sums) noexcept;
  int32_t (*sum)(const int8_t* x, int64_t k) noexcept;
  float (*max_abs)(const float* x, int64_t k) noexcept;
  // q = clamp(round(x / scale) + zero, low, high), scale > 0.
  void (*quantize)(const float* x, int64_t k, float scale, int32_t zero, int32_t low, int32_t high, int8_t* q) noexcept;
};
extern const Table kScalar;
extern const Table kAvx2;
extern const Table kAvx512;

}  // namespace statera::kernels::i8gemm
