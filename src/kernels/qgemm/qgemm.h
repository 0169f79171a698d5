// qgemm: y = x W^T with f32 x and W of 2 to 8 bits per weight, group scales and optional zero points (weight-only quantization).
// value = (code - zero) * scale, code in [0, 2^bits); symmetric weights have zero = 2^(bits-1). Nothing here is approximate
// but f32 rounding: x is never quantized, scales keep their exact values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace statera::kernels::qgemm {

inline constexpr int kRowBlock = 16;  // ranges of n split at its multiples
inline constexpr int kMaxDecodeRows = 8;

enum class ScaleType : uint8_t { f32, bf16, f16 };

struct Spec {
  int64_t n = 0, k = 0;  // W is [n, k]
  int bits = 4;          // 2..8; 7 is stored in 8
  int64_t group = 0;     // weights per scale along k; the last group may be shorter; <= 0 or >= k: one group per row
  bool zeros = false;    // zero points are given
  ScaleType scale = ScaleType::f32;
};

int64_t group_size(const Spec& spec);   // of all groups but the last
int64_t group_count(const Spec& spec);  // G = ceil(k / group_size)
// The narrowest type that holds every scale exactly (f16 before bf16 before f32): what Spec::scale should be.
ScaleType exact_scale_type(const float* scales, int64_t count);

// Size of the packed weights, a multiple of 64. N is padded to 16 and K to 32. Throws std::invalid_argument on a bad spec.
size_t packed_bytes(const Spec& spec);
// codes [N,K], scales [N,G], zeros [N,G] (null when !spec.zeros) -> packed (64-byte alignment is best for speed).
// Throws std::invalid_argument when a code or zero does not fit `bits`, or a scale is not exact in spec.scale.
void pack(const Spec& spec, const uint8_t* codes, const float* scales, const uint8_t* zeros, void* packed);

// Rows of a matrix. One of codes and words is given, the other is null.
struct Codes {
  const uint8_t* codes = nullptr;   // [rows,K]
  const uint32_t* words = nullptr;  // [rows, row_words()]: the codes of a row as one stream of fields, low bit first; not for 7 bits
  const float* scales = nullptr;    // [rows,G]
  const uint8_t* zeros = nullptr;   // [rows,G]; null when !spec.zeros
};
int64_t row_words(const Spec& spec);  // ceil(k * bits / 32), of bits as stored
// pack() of rows [n_begin, n_end) alone, where `from` begins; n_begin a multiple of kRowBlock, n_end too or N. All ranges together give what
// pack() gives.
void pack_rows(const Spec& spec, const Codes& from, void* packed, int64_t n_begin, int64_t n_end);
// Returns what pack was given, bit for bit. zeros may be null when !spec.zeros.
void unpack(const Spec& spec, const void* packed, uint8_t* codes, float* scales, uint8_t* zeros);
// W of rows [n_begin, n_end) as f32, out [n_end - n_begin, K]: (code - zero) * scale, one rounding. Any n_begin.
void dequantize(const Spec& spec, const void* packed, float* out, int64_t n_begin, int64_t n_end);

// y[m][n] = sum_k x[m][k] W[n][k] + bias[n] for m in [0, M), n in [n_begin, n_end).
// x [M, ldx >= K], y [M, ldy >= N], bias f32[N] or null; n_begin a multiple of kRowBlock, n_end too or N. Callers check shapes.
// An element does not depend on how the range of n is split. M <= 8 streams the weights once; above, see tile.h.
void matmul(const float* x, int64_t ldx, int64_t m, const void* packed, const Spec& spec, const float* bias, float* y, int64_t ldy,
            int64_t n_begin, int64_t n_end) noexcept;

// --- what the ISA files implement ---------------------------------------------------------------------------------------
// One block holds 16 rows: codes [ceil(K/32)][bits][16] uint32, scales [G][16], zeros [G][16] uint8, padded to 64 bytes.
// The `bits` words of a row in a unit of 32 k are one stream of 32 fields, low bit first, each code - 2^(bits-1) in two's
// complement, so that symmetric weights need no zero point.
struct Layout {
  int64_t n, k;
  int bits;    // as stored
  int centre;  // 2^(bits-1) of the spec
  int64_t group, groups, units;
  ScaleType scale;
  bool zeros;
  int64_t scale_offset, zero_offset, block_bytes;  // bytes inside a block
};
Layout layout_of(const Spec& spec);

// Asks for scale and zero point of group g: they lie behind all codes of a block, too far from those for decode() to have asked for them.
inline __attribute__((always_inline)) void prefetch_group(const Layout& l, const uint8_t* block, int64_t g) {
  __builtin_prefetch(block + l.scale_offset + g * kRowBlock * (l.scale == ScaleType::f32 ? 4 : 2));
  if (l.zeros) __builtin_prefetch(block + l.zero_offset + g * kRowBlock);
}

// Codes that lie `ahead` of those at hand are asked for, but when a block ends its scales are stepped over: asks for what was passed by so, into the
// second-level cache.
inline __attribute__((always_inline)) void prefetch_gap(const Layout& l, const uint8_t* block, int64_t ahead) {
  const int64_t gap = l.block_bytes - l.scale_offset;
  for (int64_t at = gap < ahead ? ahead - gap : 0; at < ahead; at += 64) __builtin_prefetch(block + at, 0, 2);
}

// A stretch of k for m rows of x: x[(k - begin)*m + row], rows interleaved so that one pointer serves them all, zeros from
// end up to the next multiple of 32. begin is a multiple of 32.
struct Stretch {
  const float* x;
  int m;  // 1..kMaxDecodeRows
  int64_t begin, end;
  const float* sums;  // [G touched][m]: sum of x over the part of each group inside the stretch; null: not computed
};

struct Table {
  // y[m*16 + row] = partial product of one block over the stretch, without bias. When l.zeros and s.sums is null, zero points
  // are taken off weight by weight.
  void (*decode)(const Layout& l, const uint8_t* block, const Stretch& s, float* y) noexcept;
  // out[k*16 + row] = weight, k in [k_begin, k_begin + count rounded up to 32), k_begin a multiple of 32.
  void (*dequantize)(const Layout& l, const uint8_t* block, int64_t k_begin, int64_t count, float* out) noexcept;
};
extern const Table kScalar;
extern const Table kAvx2;
extern const Table kAvx512;

}  // namespace statera::kernels::qgemm
