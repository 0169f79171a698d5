// Attention in integers. A packed block holds what i8gemm calls strips: K as [kKeys / 16][stride(d) / 4][16][4] codes and a scale a key, then V
// transposed, [ceil(dv / 16)][kKeys / 4][16][4], and a scale a column. Codes are moved by 128, since that side of the products is unsigned.
#include <emmintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/attn/attn.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::attn {
namespace {

using i8gemm::kAtOnce;
constexpr int64_t kLanes = i8gemm::kRowBlock, kPair = i8gemm::kBlocks * kLanes;
constexpr int64_t kPadded = kQueries + 32;  // rows of a tile, up to a multiple of any micro kernel's
constexpr float kOfOne = 127.0f;            // the code of the weight 1

const Table& table() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }
int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Where the parts of a packed block begin, in bytes; codes of keys at 0, key_stride apart.
struct Layout {
  int64_t key_stride, values, key_scale, value_scale, bytes;
  explicit Layout(const Shape& shape) {
    key_stride = up(shape.d, 64);
    values = kKeys * key_stride;
    key_scale = values + up(shape.dv, kLanes) * kKeys;
    value_scale = key_scale + kKeys * static_cast<int64_t>(sizeof(float));
    bytes = up(value_scale + up(shape.dv, kPair) * static_cast<int64_t>(sizeof(float)), 64);
  }
};

// Codes of x [rows, width] with a scale a row, as a strip has them.
void pack_rows(const float* x, int64_t ldx, int64_t rows, int64_t width, int64_t stride, uint8_t* codes, float* scale) {
  int32_t minus_sum[kMaxWidth];
  i8gemm::Rows out;
  out.k = out.segment = width;
  out.segments = 1;
  out.width = static_cast<int>(kLanes);
  out.padded = up(rows, kLanes);
  out.stride = stride;
  out.q = reinterpret_cast<int8_t*>(codes);
  out.scale = scale;
  out.minus_sum = minus_sum;
  i8gemm::quantize(x, ldx, rows, 0, out, 0);
  for (int64_t i = 0; i < out.padded * stride; ++i) codes[i] ^= 0x80;
}

// to [columns, kKeys] = from [count, columns] turned; zeros behind the last key.
void turn(const float* from, int64_t ldf, int64_t count, int64_t columns, float* to) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    int64_t n = 0;
    for (; n + 4 <= columns; n += 4) {
      __m128 row[4];
      for (int i = 0; i < 4; ++i) row[i] = _mm_loadu_ps(from + (j + i) * ldf + n);
      _MM_TRANSPOSE4_PS(row[0], row[1], row[2], row[3]);
      for (int i = 0; i < 4; ++i) _mm_storeu_ps(to + (n + i) * kKeys + j, row[i]);
    }
    for (; n < columns; ++n)
      for (int i = 0; i < 4; ++i) to[n * kKeys + j + i] = from[(j + i) * ldf + n];
  }
  for (; j < kKeys; ++j)
    for (int64_t n = 0; n < columns; ++n) to[n * kKeys + j] = j < count ? from[j * ldf + n] : 0.0f;
}

// x as codes of the active micro kernel, `capacity` rows at most.
template <int64_t kCodes>
struct Coded {
  alignas(64) int8_t q[kPadded * kCodes];
  float scale[kPadded];
  int32_t minus_sum[kPadded];
  i8gemm::Rows rows;
  Coded(int64_t m, int64_t k) {
    rows = i8gemm::tiles_of(m, k, up(k, 32));
    rows.q = q;
    rows.scale = scale;
    rows.minus_sum = minus_sum;
    std::memset(q, 0, static_cast<size_t>(rows.padded * rows.stride));
    std::fill_n(scale, rows.padded, 0.0f);
    std::fill_n(minus_sum, rows.padded, 0);
  }
};

using Micro = decltype(i8gemm::Table::micro);

// y [x.padded, ldy] = (y or 0) + x W^T for `columns` rows of W, in strips of one or two blocks.
void multiply(Micro micro, const i8gemm::Rows& x, const uint8_t* codes, int64_t stride, const float* scale, int64_t columns, bool adds, float* y, int64_t ldy) {
  static constexpr float kZero[kPair] = {};
  const int64_t k = up(x.k, 32);
  for (int64_t n = 0; n < columns; n += kPair) {
    const i8gemm::Strip strip{codes + n * stride, kLanes * stride, columns - n > kLanes ? 2 : 1, 255, k, k, scale + n, nullptr, 128};
    for (int64_t m = 0; m < x.padded; m += x.width) {
      const i8gemm::Tile tile{x.q + m * x.stride, x.scale + m, x.minus_sum + m, x.width, x.width};
      float* to = y + m * ldy + n;
      micro(strip, tile, adds ? to : kZero, adds ? ldy : 0, to, ldy);
    }
  }
}

// The online softmax of a block of scores in units of log 2, s [rows][kKeys]: codes of its weights, with scales that bring them to the row's
// maximum so far; what came before shrinks by factor[row].
struct Running {
  float maximum[kPadded], total[kPadded], factor[kPadded];
  explicit Running(int64_t rows) {
    std::fill_n(maximum, rows, -__builtin_inff());
    std::fill_n(total, rows, 0.0f);
  }
  void weigh(const Table& t, const float* s, int64_t rows, int64_t count, const i8gemm::Rows& out) {
    alignas(64) i8gemm::Codes codes;
    for (int64_t r = 0, together = 0; r < rows; r += together) {
      together = std::min<int64_t>({kAtOnce, rows - r, out.width - r % out.width});
      for (int64_t i = r; i < r + together; ++i) {
        int8_t* q = codes[i - r];
        float most;
        out.minus_sum[i] = -t.weights(s + i * kKeys, count, q, &most);
        std::memset(q + count, 0, static_cast<size_t>(kKeys - count));
        const float before = maximum[i];
        maximum[i] = before >= most ? before : most != most ? most : before == before ? most : before;  // NaN, once there, stays
        factor[i] = before - maximum[i];
        out.scale[i] = most - maximum[i];
      }
      i8gemm::lay(codes, static_cast<int>(together), kKeys, out, r, 0);
    }
    t.exp2(factor, rows);
    t.exp2(out.scale, rows);
    for (int64_t r = 0; r < rows; ++r) {
      out.scale[r] /= kOfOne;
      total[r] = total[r] * factor[r] - static_cast<float>(out.minus_sum[r]) * out.scale[r];
    }
  }
};

}  // namespace

// AVX2 alone multiplies bytes of more than 7 bits as 16-bit words.
bool codes_are_fast() noexcept {
  const i8gemm::Kernels kernels = i8gemm::active_kernels();
  return kernels.more || kernels.table == &i8gemm::kAvx512;
}

void mean_key(const Sequence& s, const Shape& shape, int64_t key_head, float* mean) noexcept {
  const elementwise::Table& e = elementwise::table();
  std::fill_n(mean, shape.d, 0.0f);
  for (int64_t j = 0; j < s.keys; ++j) e.add(mean, static_cast<const float*>(s.k.at(j, key_head)), shape.d, mean);
  for (int64_t i = 0; i < shape.d; ++i) mean[i] /= static_cast<float>(s.keys);
}

int64_t coded_size(const Shape& shape) { return Layout(shape).bytes; }

void pack_coded(const Sequence& s, const Shape& shape, int64_t key_head, int64_t block, const float* mean, void* packed) noexcept {
  const int64_t first = block * kKeys, count = std::min(kKeys, s.keys - first), d = shape.d, dv = shape.dv;
  const Layout l(shape);
  auto* to = static_cast<uint8_t*>(packed);
  alignas(64) float wide[kKeys * kMaxWidth];
  alignas(64) float minus_mean[kMaxWidth];
  for (int64_t i = 0; i < d; ++i) minus_mean[i] = -mean[i];
  for (int64_t j = 0; j < count; ++j) elementwise::table().add(static_cast<const float*>(s.k.at(first + j, key_head)), minus_mean, d, wide + j * d);
  std::fill_n(wide + count * d, (up(count, kPair) - count) * d, 0.0f);
  pack_rows(wide, d, up(count, kPair), d, l.key_stride, to, reinterpret_cast<float*>(to + l.key_scale));
  turn(static_cast<const float*>(s.v.at(first, key_head)), s.v.row, count, dv, wide);
  std::fill_n(wide + dv * kKeys, (up(dv, kLanes) - dv) * kKeys, 0.0f);
  pack_rows(wide, kKeys, up(dv, kLanes), kKeys, kKeys, to + l.values, reinterpret_cast<float*>(to + l.value_scale));
}

void run_coded_tile(const Sequence& s, const Shape& shape, int64_t head, int64_t tile, const void* packed) noexcept {
  const Table& t = table();
  const elementwise::Table& e = elementwise::table();
  const Layout l(shape);
  const int64_t first = tile * kQueries, rows = std::min(kQueries, s.queries - first), ldo = up(shape.dv, kLanes);
  alignas(64) float wide[kPadded * kMaxWidth];  // queries, then sums
  alignas(64) float p[kPadded * kKeys];
  Coded<kMaxWidth> q(rows, shape.d);
  Coded<kKeys> weights(rows, kKeys);
  Running now(rows);
  std::fill_n(now.factor, rows, shape.scale * static_cast<float>(M_LOG2E));
  e.scale_rows(s.q.at(first, head), s.q.row, rows, shape.d, now.factor, wide, shape.d);
  i8gemm::quantize(wide, shape.d, rows, 0, q.rows, 0);
  const i8gemm::Micro* more = i8gemm::micro_for(q.rows);
  const Micro micro = more ? more->micro : i8gemm::active_kernels().table->micro;
  if (more && more->begin) more->begin();
  for (int64_t key = 0; key < s.keys; key += kKeys) {
    const int64_t count = std::min(kKeys, s.keys - key);
    const auto* block = static_cast<const uint8_t*>(packed) + key / kKeys * l.bytes;
    multiply(micro, q.rows, block, l.key_stride, reinterpret_cast<const float*>(block + l.key_scale), count, /*adds=*/false, p, kKeys);
    now.weigh(t, p, rows, count, weights.rows);
    for (int64_t r = 0; key > 0 && r < rows; ++r)
      if (now.factor[r] != 1) e.scale_rows(wide + r * ldo, ldo, 1, ldo, now.factor + r, wide + r * ldo, ldo);
    multiply(micro, weights.rows, block + l.values, kKeys, reinterpret_cast<const float*>(block + l.value_scale), ldo, /*adds=*/key > 0, wide, ldo);
  }
  if (more && more->end) more->end();
  for (int64_t r = 0; r < rows; ++r) now.factor[r] = 1 / now.total[r];
  e.scale_rows(wide, ldo, rows, shape.dv, now.factor, s.out + first * s.out_row + head * shape.dv, s.out_row);
}

}  // namespace statera::kernels::attn
