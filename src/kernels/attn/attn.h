// attn: softmax(scale q k^T) v in f32 without the matrix of scores: blocks of keys pass by, each row keeps its maximum and its sum (online
// softmax). Which keys a query sees follows from its position: all, those up to its own, or the last `window` of these. Two ways: `run_tile`
// for many queries of a sequence, over keys packed once for the tiles of all heads that read them; `run_part` for a few, over keys as they lie
// in a cache, in parts that `merge` joins. Callers spread tiles and parts over threads; neither depends on how.
#pragma once

#include <cstdint>

namespace statera::kernels::attn {

inline constexpr int64_t kKeys = 128;     // of one block
inline constexpr int64_t kQueries = 96;   // of one tile
inline constexpr int64_t kPartKeys = 256; // of one part
inline constexpr int64_t kMaxWidth = 256; // of a head
inline constexpr int64_t kMaxFew = 32;    // rows of a part: queries times the query heads of a key head

// [rows, heads, width] somewhere in memory: elements from row to row and head to head, width contiguous.
struct View {
  const float* data = nullptr;
  int64_t row = 0, head = 0;
  const float* at(int64_t r, int64_t h) const { return data + r * row + h * head; }
};

// How keys and values lie. i8: codes, with a scale for each row and head.
enum class Form : uint8_t { f32, f16, i8 };
struct Stored {
  const void* data = nullptr;
  int64_t row = 0, head = 0;  // as in View
  Form form = Form::f32;
  const float* scale = nullptr;  // i8: those of a head's rows side by side
  int64_t scale_head = 0;        // scales from head to head
  const void* at(int64_t r, int64_t h) const {
    return static_cast<const uint8_t*>(data) + (r * row + h * head) * (form == Form::f32 ? 4 : form == Form::f16 ? 2 : 1);
  }
  const float* scales(int64_t r, int64_t h) const { return scale + h * scale_head + r; }
};
// Brings n elements of one row and head into a form. i8: *scale = max|x| / 127.5 and codes to the nearest, halves to even, as activations are
// quantized (i8gemm.h). f16: to the nearest; false where a finite element lies beyond its range.
bool store(const float* x, int64_t n, Form form, void* to, float* scale) noexcept;

// One sequence. The last of the queries stands at the position of the last key.
struct Sequence {
  View q;
  Stored k, v;
  float* out = nullptr;  // [queries, heads * dv], out_row apart
  int64_t out_row = 0;
  int64_t queries = 0, keys = 0;
};

struct Shape {
  int64_t heads = 0, key_heads = 0;  // key head j serves query heads j * group() ...
  int64_t d = 0, dv = 0;             // <= kMaxWidth
  float scale = 1;
  bool causal = true;
  int64_t window = 0;  // > 0, with causal: a query sees this many keys, its own the last
  int64_t group() const { return heads / key_heads; }
};

inline int64_t blocks(int64_t keys) { return (keys + kKeys - 1) / kKeys; }
inline int64_t tiles(int64_t queries) { return (queries + kQueries - 1) / kQueries; }
inline int64_t parts(int64_t keys) { return (keys + kPartKeys - 1) / kPartKeys; }

// Floats of one packed block of one key head; those of a head lie one after another.
int64_t packed_size(const Shape& shape);
// Packs block `block` of key head `key_head`, as floats.
void pack(const Sequence& s, const Shape& shape, int64_t key_head, int64_t block, float* packed) noexcept;
// Queries [tile * kQueries, ...) of one query head; packed: the blocks of its key head. Needs 400 KiB of stack.
void run_tile(const Sequence& s, const Shape& shape, int64_t head, int64_t tile, const float* packed) noexcept;

// --- both products in integers -----------------------------------------------------------------------------------------------------------
// For sequences whose queries see every key (not causal), k and v in f32. Queries and keys become codes of 8 bits with a scale a row, keys less
// their mean, which moves all scores of a query alike and so no weight (SageAttention, arXiv:2410.02367); values with a scale for each column of
// a block; weights exp(score - the largest of the row and block) become codes of 1/127. Sums are exact.

// Whether the active instruction set multiplies codes faster than floats.
bool codes_are_fast() noexcept;
// Of all keys of a head, which pack_coded takes off.
void mean_key(const Sequence& s, const Shape& shape, int64_t key_head, float* mean) noexcept;  // [d]
// Bytes of one packed block of one key head, a multiple of 64; those of a head lie one after another, 64-byte aligned.
int64_t coded_size(const Shape& shape);
void pack_coded(const Sequence& s, const Shape& shape, int64_t key_head, int64_t block, const float* mean, void* packed) noexcept;
// As run_tile. Needs 300 KiB of stack.
void run_coded_tile(const Sequence& s, const Shape& shape, int64_t head, int64_t tile, const void* packed) noexcept;

// Whether `run_part` takes a sequence with so many queries.
inline bool few(int64_t queries, const Shape& shape) { return queries <= 4 && queries * shape.group() <= kMaxFew; }
// Floats that run_part writes: [queries * group][dv + 2].
inline int64_t part_size(int64_t queries, const Shape& shape) { return queries * shape.group() * (shape.dv + 2); }
// Keys [part * kPartKeys, ...) of one key head, for all its query heads and all queries. Needs 64 KiB of stack.
void run_part(const Sequence& s, const Shape& shape, int64_t key_head, int64_t part, float* to) noexcept;
// The parts of one key head, part_size apart, into s.out.
void merge(const Sequence& s, const Shape& shape, int64_t key_head, const float* from) noexcept;

// --- what the ISA files implement -------------------------------------------------------------------------------------------------------
struct Table {
  // o[r][0..n) += sum over j < keys of p[r][j] v[j][0..n), r < rows; p rows kKeys apart, v rows ldv elements of `form` (codes as they are), o
  // rows ldo.
  void (*weigh)(const float* p, int64_t rows, const void* v, Form form, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) noexcept;
  // p[r][j] *= factor[j], j < count; p rows kKeys apart.
  void (*times)(float* p, int64_t rows, const float* factor, int64_t count) noexcept;
  // to[i] = from[i] * factor, i < n.
  void (*widen)(const void* from, Form form, int64_t n, float factor, float* to) noexcept;
  // f32 to f16, ties to even; false where a finite element became infinite.
  bool (*halve)(const float* x, int64_t n, uint16_t* to) noexcept;
  // q[j] = 127 * 2^(s[j] - *most) to the nearest integer, j < n, *most the largest of s; returns their sum. A score that is infinite or NaN: *most
  // becomes NaN, and all q 0.
  int32_t (*weights)(const float* s, int64_t n, int8_t* q, float* most) noexcept;
  // x[i] = 2^x[i] for x <= 0, within 3e-6 of it; 2^-126 below -126.
  void (*exp2)(float* x, int64_t n) noexcept;
};
// 2^f for f in [-0.5, 0.5]: 1 + f (kExp2[0] + f (kExp2[1] + ...)), relative error 2.9e-6 (minimax with the value 1 at 0).
inline constexpr float kExp2[] = {0x1.62e12cp-1f, 0x1.ec0378p-3f, 0x1.c9fc46p-5f, 0x1.3a02ccp-7f};
extern const Table kScalar;
extern const Table kAvx2;
extern const Table kAvx512;

}  // namespace statera::kernels::attn
