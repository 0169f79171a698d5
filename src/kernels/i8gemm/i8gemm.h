// i8gemm: y = x W^T in integers: x as int8 with a scale per token or per token and group of k, W of 2 to 8 bits as qgemm packs it.
// k is cut into segments, each within one group of W and one of x. The sum over a segment is exact in int32, its zero points included
// (255 * 128 * kMaxSegment < 2^31); sums of segments meet in f32, times both scales.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/qgemm/qgemm.h"

namespace statera::kernels::i8gemm {

inline constexpr int kRowBlock = qgemm::kRowBlock;  // ranges of n split at its multiples
inline constexpr int kBlocks = 2;       // blocks that are multiplied together
inline constexpr int kBestRows = 64;    // what ranges of n are best split at multiples of
// Rows of x that decode() takes at a time. Up to kMostDecodeRows go to it in groups of equal size, unless a Micro takes them: W is then unpacked
// in registers for each, which costs less than unpacking it into memory and multiplying tiles that so few rows do not fill.
inline constexpr int kMaxDecodeRows = 8, kMostDecodeRows = 24;
// Rows of x that are multiplied together, when there are more: with short segments few, whose sums in f32 stay in registers.
inline constexpr int kTileRows = 7, kLongTileRows = 12;
inline constexpr int64_t kShortSegment = 255;  // sums of its codes fit 16 bits: 255 * 128
inline constexpr int64_t kMaxSegment = 1024;
// Of AMX: codes of k in a row of a tile, and the k of x and W that are multiplied at a time (or one segment).
inline constexpr int kTileCodes = 64;
inline constexpr int64_t kTileChunk = 256;

// Length of the segments of x in groups of x_group (<= 0 or >= k: a token has one scale) against W; 0: not possible. Groups that do
// not cover the row must be multiples of 32, one of the two a multiple of the other.
int64_t segment_of(const qgemm::Spec& w, int64_t x_group);

// Quantized x: codes of `width` rows lie together, T = `together` of k at a time, as the kernels read them: row r's code k is at
// q[r / width * width * stride + k / T * T * width + r % width * T + k % T]; zeros between K and stride. Rows between M and `padded` are
// read, whatever they hold. evens_first: of every eight codes of a row those of even k lie before those of odd k, as the two halves of bytes
// of W do.
struct Rows {
  int64_t k = 0, segment = 0, segments = 0;  // segments = ceil(k / segment)
  int width = 1;
  int together = 4;
  bool decode = false;           // width is that of a group for decode(), not of a tile
  bool evens_first = false;      // for W of 4 bits, in decode()
  int64_t padded = 0;            // M up to a multiple of width
  int64_t stride = 0;            // bytes of codes a row
  int8_t* q = nullptr;           // [padded * stride]
  float* scale = nullptr;        // [padded / width][segments][width]
  int32_t* minus_sum = nullptr;  // [padded / width][segments][width]: minus the sum of the segment's codes
  int64_t at(int64_t row, int64_t s) const { return row / width * width * segments + s * width + row % width; }  // of either
};
// All but the pointers, whose memory is the caller's; as the active set wants it, which must not change before matmul(). bits: of W.
Rows rows_of(int64_t m, int64_t k, int64_t segment, int bits);
Rows tiles_of(int64_t m, int64_t k, int64_t segment);  // the same for those who call micro() themselves
// Those from row `first` on, a multiple of width.
Rows rows_from(const Rows& x, int64_t first);
// How many of m such rows matmul() takes at a time, a multiple of width: W is read and unpacked once for them.
int64_t rows_at_once(const Rows& x, int64_t m);

// Dynamic quantization of m rows of x [M, ldx] into rows [first, first + m) of out: scale = max|x of the group| / 127.5 and q = x / scale to
// the nearest, halves to even, within [-128, 127]; a group of zeros gets scale 0 and zeros, one with an infinity or NaN a scale that is no
// number either. x_group as above. Equal on every instruction set. Threads split rows at multiples of width.
void quantize(const float* x, int64_t ldx, int64_t m, int64_t x_group, const Rows& out, int64_t first) noexcept;
// One row whose codes lie as they come, with one scale, which is returned.
float quantize_row(const float* x, int64_t k, int8_t* q) noexcept;
// As quantize(), with the scale of each of the m rows given.
void quantize_static(const float* x, int64_t ldx, int64_t m, const float* scale, const Rows& out, int64_t first) noexcept;
// Columns [begin, end) of that alone, x from column `begin` on: begin a multiple of 64, end too or K. A segment may come in pieces, from several
// threads: their minus_sum is added up, so it has to be 0 before.
void quantize_static_columns(const float* x, int64_t ldx, int64_t m, const float* scale, const Rows& out, int64_t first, int64_t begin,
                             int64_t end) noexcept;

// Codes of up to kAtOnce rows, 64-byte aligned, on their way into Rows: `count` of k on, a multiple of 64, of rows [row, row + rows), which lie
// in one stretch of Rows::width.
inline constexpr int kAtOnce = 4;
using Codes = int8_t[kAtOnce][kMaxSegment + 64];
void lay(const Codes& codes, int rows, int64_t count, const Rows& out, int64_t row, int64_t k) noexcept;

// y[m][n] = sum over segments of (sum_k q[m][k] (code[n][k] - zero[n][g])) * x_scale * scale[n][g], + bias[n]; for m in [0, M), the rows
// that rows_of() was told of or the first of them, and n in [n_begin, n_end): n_begin a multiple of kRowBlock, n_end too or N.
// x.segment = segment_of(w, groups of x), x.k = w.k. bias may be null. An element does not depend on the range nor, without bias, on M.
void matmul(const Rows& x, int64_t m, const void* packed, const qgemm::Spec& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
            int64_t n_end) noexcept;

// --- what the ISA files implement ---------------------------------------------------------------------------------------
// W of up to kBlocks blocks over whole segments, unpacked: one byte a code, code in [0, 2^bits), codes of k beyond K are anything (x is 0).
struct Strip {
  const uint8_t* codes;  // [blocks][k/4][16][4]
  int64_t block_bytes;   // between blocks of codes
  int blocks;
  int max_code;
  int64_t k, segment;    // k a multiple of 32; the last segment may be shorter
  const float* scale;    // [segments][kBlocks][16]
  const int32_t* zero;   // [segments][kBlocks][16]; null: every zero point is
  int32_t centre;
};
// The rows of x that meet it, from the strip's first k and segment on: with T = Rows::together, row r's codes of T*i.. are at
// q[T * (i * rows + r)], its scale of segment s at scale[s * rows + r].
struct Tile {
  const int8_t* q;
  const float* scale;
  const int32_t* minus_sum;
  int rows;          // a whole tile: Rows::width
  int wanted;        // the first so many; of the others anything or nothing may be written
};
struct Table {
  // Codes of units (32 k) [unit, unit + units) of a block as Strip holds them.
  void (*unpack)(const qgemm::Layout& l, const uint8_t* block, int64_t unit, int64_t units, uint8_t* codes) noexcept;
  // Scales of group g of a block, and its zero points unless zero is null.
  void (*group)(const qgemm::Layout& l, const uint8_t* block, int64_t g, float* scale, int32_t* zero) noexcept;
  // y[r][0..16*blocks) = init[r*ld_init ..] + the product.
  void (*micro)(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept;
  // y[r*16*kBlocks ..] = the product of one or two blocks as they lie and m <= kMaxDecodeRows rows of x. Null: unpack and micro.
  void (*decode)(const qgemm::Layout& l, const uint8_t* block, int blocks, const Rows& x, int m, float* y) noexcept;
  float (*max_abs)(const float* x, int64_t k) noexcept;  // NaN when there is one
  // q = clamp(round(x / scale)), scale > 0; returns the sum of q.
  int32_t (*quantize)(const float* x, int64_t k, float scale, int8_t* q) noexcept;
};
extern const Table kScalar;
extern const Table kAvx2;
extern const Table kAvx512;

// A micro that takes the place of the table's where a machine has instructions beyond those of the table's set. It reads tiles whose
// `together` is its own: for more than 4, segments that are multiples of it, or one segment.
struct Micro {
  int together, width;
  void (*micro)(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept;
  // On each thread before and after calls of micro; null: nothing to do.
  void (*begin)() noexcept;
  void (*end)() noexcept;
};
extern const Micro kAvxVnni;  // beside kAvx2
extern const Micro kAmx;      // beside kAvx512
// What the functions above run on.
struct Kernels {
  const Table* table;
  const Micro* more;  // null: none
};
Kernels active_kernels();
// The micro that reads rows as they lie; null: the table's.
const Micro* micro_for(const Rows& x);
// For tests: uses these whatever the active set, until null is given. The same cautions as with set_isa.
void set_kernels(const Kernels* kernels);

}  // namespace statera::kernels::i8gemm
