// tile: y[M,N] = x[M,K] W[N,K]^T in f32 by cache blocks, whatever W is stored as: the caller fills one f32 block of W at a
// time, so that each weight is decoded once per kTileM rows of x. The op files under other folders use it for M > 8.
// Not an entry point for models.
#pragma once

#include <cstdint>

namespace statera::kernels::tile {

inline constexpr int kRowBlock = 16;  // rows of W in one block
inline constexpr int kTileK = 128;    // k of one block: two blocks, a panel of x and the next one stay in a 32 KiB first-level cache
inline constexpr int kTileM = 264;    // rows of x that stay in the second-level cache, 22 times 12, and
inline constexpr int kPanelK = 6 * kTileK;  // how much of k of them: an element of y is loaded and stored once per panel

// Writes out[k][16] for k in [0, count): W[16*block + 0..15][k_begin + k], rows beyond N anything finite. k_begin is a
// multiple of kTileK, count <= kTileK; up to count rounded up to 32 may be written.
using Fill = void (*)(const void* source, int64_t block, int64_t k_begin, int64_t count, float* out) noexcept;
// The same of weights stored as bf16, as they are: out[i][16] holds k_begin + 2 i in the lower half of a word and the next in the upper one, for
// all 16 i; zeros from count on, count <= 32.
using FillPairs = void (*)(const void* source, int64_t block, int64_t k_begin, int64_t count, uint32_t* out) noexcept;
struct Weights {
  Fill fill;
  const void* source;
  FillPairs pairs;  // null: only fill
};

// y[m][n] for m in [0, M), n in [n_begin, n_end): n_begin a multiple of 16, n_end too or the end of W.
// x [M, ldx], y [M, ldy], bias f32[N] or null. Needs 2.5 MiB of stack. The sums of an element do not depend on the range or on M. With AMX: tiles.h, where
// products may be off by 2^-24 of themselves and numbers below 2^-110 by more.
void run(const float* x, int64_t ldx, int64_t m, int64_t k, const Weights& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
         int64_t n_end) noexcept;
// The same by the table below whatever the machine has; y points at column n_begin.
void run_fma(const float* x, int64_t ldx, int64_t m, int64_t k, const Weights& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
             int64_t n_end) noexcept;

// y[r][0..16*blocks) = init[r*ld_init ..] + sum_k x[r*kTileK + k] * w[b][k][0..16), r < rows <= max_rows, blocks 1 or 2,
// blocks of w kTileK*16 apart. One FMA chain per element, k rising, from 0; init is added last, so that it need not be in cache.
// ahead: 16*k bytes that are asked into the second-level cache meanwhile (null: none).
struct Table {
  int max_rows;  // <= 16
  void (*micro)(const float* x, int rows, const float* w, int blocks, int64_t k, const float* init, int64_t ld_init, float* y,
                int64_t ldy, const void* ahead) noexcept;
};
extern const Table kScalar;
extern const Table kAvx2;
extern const Table kAvx512;
// Of the active instruction set; for amx the AVX-512 one.
const Table& table();

}  // namespace statera::kernels::tile
