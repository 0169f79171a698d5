// The loops over blocks of keys. Products run in the micro kernel of tile.h, so a packed block is laid out as that reads it: K transposed,
// [ceil(d / kTileK)][kKeys / 16][kTileK][16], then V, [ceil(dv / 16)][kKeys][16].
#include "kernels/attn/attn.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/hgemm/hgemm.h"
#include "kernels/i8gemm/i8gemm.h"
#include "kernels/tile/tile.h"

namespace statera::kernels::attn {
namespace {

using elementwise::kHidden;
constexpr int64_t kLanes = tile::kRowBlock, kChunk = int64_t{tile::kTileK} * kLanes;  // floats of kTileK rows of 16 columns
constexpr int64_t kMaxChunks = kMaxWidth / tile::kTileK;
static_assert(kKeys == tile::kTileK && kPartKeys % kKeys == 0);

const Table& table() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }
const hgemm::Table& converter() { return table_of(hgemm::kScalar, hgemm::kAvx2, hgemm::kAvx512, hgemm::kAvx512); }

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t chunks_of(const Shape& shape) { return (shape.d + tile::kTileK - 1) / tile::kTileK; }
int64_t keys_size(const Shape& shape) { return chunks_of(shape) * (kKeys / kLanes) * kChunk; }

// The keys that a query sees: [begin, end).
struct Range {
  int64_t begin, end;
};
Range visible(const Sequence& s, const Shape& shape, int64_t query) {
  if (!shape.causal) return {0, s.keys};
  const int64_t end = s.keys - s.queries + query + 1;
  return {shape.window > 0 ? std::max<int64_t>(0, end - shape.window) : 0, end};
}

// What a block of scores needs besides them.
template <int64_t kRows>
struct Running {
  float maximum[kRows], total[kRows], factor[kRows];
  int64_t begin[kRows], end[kRows];  // visible keys, counted from the block's first
  explicit Running(int64_t rows) {
    std::fill_n(maximum, rows, kHidden);
    std::fill_n(total, rows, 0.0f);
  }
};

// Up to kLanes keys of one head, elements [k0, k0 + depth), transposed as floats.
void pack_keys(const Stored& k, int64_t row, int64_t head, int64_t count, int64_t k0, int64_t depth, float* packed) {
  if (k.form == Form::f32) {
    const hgemm::Rows rows{k.at(row, head), hgemm::Type::f32, k.row, static_cast<int>(count)};
    return converter().convert(rows, k0, depth, packed);
  }
  alignas(64) float wide[kChunk];
  for (int64_t j = 0; j < count; ++j) {
    const void* from = static_cast<const uint8_t*>(k.at(row + j, head)) + k0 * (k.form == Form::f16 ? 2 : 1);
    table().widen(from, k.form, depth, k.form == Form::i8 ? *k.scales(row + j, head) : 1, wide + j * tile::kTileK);
  }
  converter().convert({wide, hgemm::Type::f32, tile::kTileK, static_cast<int>(count)}, 0, depth, packed);
}

// What hgemm calls the form of a block of keys.
hgemm::Matrix matrix(const Stored& k, int64_t row, int64_t head, int64_t count, int64_t d) {
  const hgemm::Type type = k.form == Form::f32 ? hgemm::Type::f32 : k.form == Form::f16 ? hgemm::Type::f16 : hgemm::Type::i8;
  return {.data = k.at(row, head), .type = type, .n = count, .k = d, .ldw = k.row};
}

// s [rows][kKeys] = x [rows][d] K^T of one packed block, but for keys that none of the rows multiplied together sees: row r sees keys [begin[r],
// end[r]), both of which never fall.
void scores(const tile::Table& t, const Shape& shape, const float* x, int64_t rows, const float* packed, int64_t keys, const int64_t* begin,
            const int64_t* end, float* s) {
  static constexpr float kZero[2 * tile::kRowBlock] = {};
  for (int64_t c = 0; c < chunks_of(shape); ++c) {
    const float *chunk = packed + c * (kKeys / kLanes) * kChunk, *xc = x + c * kQueries * tile::kTileK;
    const int64_t depth = std::min<int64_t>(tile::kTileK, shape.d - c * tile::kTileK);
    for (int64_t n = 0; n < keys; n += 2 * kLanes) {
      const int pair = keys - n > kLanes ? 2 : 1;
      for (int64_t r = 0; r < rows; r += t.max_rows) {
        const int64_t count = std::min<int64_t>(t.max_rows, rows - r);
        if (n >= end[r + count - 1] || n + pair * kLanes <= begin[r]) continue;
        float* to = s + r * kKeys + n;
        t.micro(xc + r * tile::kTileK, static_cast<int>(count), chunk + n / kLanes * kChunk, pair, depth, c == 0 ? kZero : to, c == 0 ? 0 : kKeys, to,
                kKeys, nullptr);
      }
    }
  }
}

// o [rows][ldo] += p [rows][kKeys] V of one packed block, up to the last key that one of the rows multiplied together sees.
void values(const tile::Table& t, const float* p, int64_t rows, const float* packed, int64_t keys, const int64_t* end, float* o, int64_t ldo) {
  for (int64_t n = 0; n < ldo; n += 2 * kLanes) {
    const int pair = ldo - n > kLanes ? 2 : 1;
    for (int64_t r = 0; r < rows; r += t.max_rows) {
      const int64_t count = std::min<int64_t>(t.max_rows, rows - r), seen = std::min(keys, end[r + count - 1]);
      if (seen <= 0) continue;
      float* to = o + r * ldo + n;
      t.micro(p + r * kKeys, static_cast<int>(count), packed + n / kLanes * kChunk, pair, seen, to, ldo, to, ldo, nullptr);
    }
  }
}

}  // namespace

bool store(const float* x, int64_t n, Form form, void* to, float* scale) noexcept {
  if (form == Form::f16) return table().halve(x, n, static_cast<uint16_t*>(to));
  if (form == Form::i8)
    *scale = i8gemm::quantize_row(x, n, static_cast<int8_t*>(to));
  else
    std::memcpy(to, x, static_cast<size_t>(n) * sizeof(float));
  return true;
}

int64_t packed_size(const Shape& shape) { return keys_size(shape) + up(shape.dv, kLanes) * kKeys; }

void pack(const Sequence& s, const Shape& shape, int64_t key_head, int64_t block, float* packed) noexcept {
  const int64_t first = block * kKeys, count = std::min(kKeys, s.keys - first);
  for (int64_t c = 0; c < chunks_of(shape); ++c) {
    const int64_t k0 = c * tile::kTileK, depth = std::min<int64_t>(tile::kTileK, shape.d - k0);
    for (int64_t n = 0; n < count; n += kLanes)
      pack_keys(s.k, first + n, key_head, std::min(kLanes, count - n), k0, depth, packed + (c * (kKeys / kLanes) + n / kLanes) * kChunk);
  }
  float *v = packed + keys_size(shape), wide[kMaxWidth];
  for (int64_t j = 0; j < count; ++j) {
    const auto* from = static_cast<const float*>(s.v.at(first + j, key_head));
    if (s.v.form != Form::f32) {
      table().widen(from, s.v.form, shape.dv, s.v.form == Form::i8 ? *s.v.scales(first + j, key_head) : 1, wide);
      from = wide;
    }
    int64_t n = 0;
    for (; n + kLanes <= shape.dv; n += kLanes) std::memcpy(v + n / kLanes * kChunk + j * kLanes, from + n, kLanes * sizeof(float));
    if (n == shape.dv) continue;
    float* edge = v + n / kLanes * kChunk + j * kLanes;
    std::memset(edge, 0, kLanes * sizeof(float));
    std::memcpy(edge, from + n, static_cast<size_t>(shape.dv - n) * sizeof(float));
  }
}

void run_tile(const Sequence& s, const Shape& shape, int64_t head, int64_t tile, const float* packed) noexcept {
  const tile::Table& t = tile::table();
  const elementwise::Table& e = elementwise::table();
  const int64_t first = tile * kQueries, rows = std::min(kQueries, s.queries - first), ldo = up(shape.dv, kLanes);
  alignas(64) float x[kMaxChunks * kQueries * tile::kTileK], p[kQueries * kKeys], o[kQueries * kMaxWidth];
  Running<kQueries> now(rows);
  std::fill_n(now.factor, rows, shape.scale);
  for (int64_t c = 0; c < chunks_of(shape); ++c) {
    const int64_t k0 = c * tile::kTileK, depth = std::min<int64_t>(tile::kTileK, shape.d - k0);
    e.scale_rows(s.q.at(first, head) + k0, s.q.row, rows, depth, now.factor, x + c * kQueries * tile::kTileK, tile::kTileK);
  }
  std::memset(o, 0, static_cast<size_t>(rows * ldo) * sizeof(float));
  const int64_t begin = visible(s, shape, first).begin / kKeys * kKeys, end = visible(s, shape, first + rows - 1).end;
  for (int64_t key = begin; key < end; key += kKeys) {
    const int64_t count = std::min(kKeys, end - key);
    const float* block = packed + key / kKeys * packed_size(shape);
    for (int64_t r = 0; r < rows; ++r) {
      const Range range = visible(s, shape, first + r);
      now.begin[r] = range.begin - key;
      now.end[r] = range.end - key;
    }
    scores(t, shape, x, rows, block, count, now.begin, now.end, p);
    e.softmax(p, kKeys, rows, count, now.begin, now.end, now.maximum, now.total, now.factor);
    e.scale_rows(o, ldo, rows, ldo, now.factor, o, ldo);
    values(t, p, rows, block + keys_size(shape), count, now.end, o, ldo);
  }
  for (int64_t r = 0; r < rows; ++r) now.factor[r] = 1 / now.total[r];
  e.scale_rows(o, ldo, rows, shape.dv, now.factor, s.out + first * s.out_row + head * shape.dv, s.out_row);
}

// Row r of a part is query r / group, query head r % group of those that key_head serves.
void run_part(const Sequence& s, const Shape& shape, int64_t key_head, int64_t part, float* to) noexcept {
  const Table& t = table();
  const elementwise::Table& e = elementwise::table();
  const int64_t G = shape.group(), rows = s.queries * G, first = part * kPartKeys, end = std::min(s.keys, first + kPartKeys), ldo = shape.dv + 2;
  alignas(64) float x[kMaxFew * kMaxWidth], p[kMaxFew * kKeys];
  Running<kMaxFew> now(rows);
  std::fill_n(now.factor, G, shape.scale);
  for (int64_t i = 0; i < s.queries; ++i) e.scale_rows(s.q.at(i, key_head * G), s.q.head, G, shape.d, now.factor, x + i * G * shape.d, shape.d);
  for (int64_t r = 0; r < rows; ++r) std::memset(to + r * ldo, 0, static_cast<size_t>(shape.dv) * sizeof(float));
  const int64_t seen = std::max(first, visible(s, shape, 0).begin);  // a window may hide the first keys from every row
  for (int64_t key = seen; key < end; key += kKeys) {
    const int64_t count = std::min(kKeys, end - key);
    const hgemm::Matrix k = matrix(s.k, key, key_head, count, shape.d);
    for (int64_t r = 0; r < rows; r += hgemm::kMaxDecodeRows)
      hgemm::matmul(x + r * shape.d, shape.d, std::min<int64_t>(hgemm::kMaxDecodeRows, rows - r), k, nullptr, p + r * kKeys, kKeys, 0, count);
    if (s.k.form == Form::i8) t.times(p, rows, s.k.scales(key, key_head), count);
    for (int64_t r = 0; r < rows; ++r) {
      const Range range = visible(s, shape, r / G);
      now.begin[r] = range.begin - key;
      now.end[r] = range.end - key;
    }
    e.softmax(p, kKeys, rows, count, now.begin, now.end, now.maximum, now.total, now.factor);
    e.scale_rows(to, ldo, rows, shape.dv, now.factor, to, ldo);
    if (s.v.form == Form::i8) t.times(p, rows, s.v.scales(key, key_head), count);
    t.weigh(p, rows, s.v.at(key, key_head), s.v.form, s.v.row, count, shape.dv, to, ldo);
  }
  for (int64_t r = 0; r < rows; ++r) {
    to[r * ldo + shape.dv] = now.maximum[r];
    to[r * ldo + shape.dv + 1] = now.total[r];
  }
}

// A part none of whose keys a row sees has kHidden as maximum and weighs nothing.
void merge(const Sequence& s, const Shape& shape, int64_t key_head, const float* from) noexcept {
  const Table& t = table();
  const int64_t G = shape.group(), P = parts(s.keys), ldo = shape.dv + 2, step = part_size(s.queries, shape);
  float weight[kKeys];
  for (int64_t r = 0; r < s.queries * G; ++r) {
    const float* row = from + r * ldo;
    float* out = s.out + r / G * s.out_row + (key_head * G + r % G) * shape.dv;
    float most = kHidden, total = 0;
    for (int64_t i = 0; i < P; ++i) most = std::max(most, row[i * step + shape.dv]);
    for (int64_t i = 0; i < P; ++i) total += std::exp(row[i * step + shape.dv] - most) * row[i * step + shape.dv + 1];
    std::memset(out, 0, static_cast<size_t>(shape.dv) * sizeof(float));
    for (int64_t first = 0; first < P; first += kKeys) {
      const int64_t count = std::min(kKeys, P - first);
      for (int64_t i = 0; i < count; ++i) weight[i] = std::exp(row[(first + i) * step + shape.dv] - most) / total;
      t.weigh(weight, 1, row + first * step, Form::f32, step, count, shape.dv, out, shape.dv);
    }
  }
}

}  // namespace statera::kernels::attn
