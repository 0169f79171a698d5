// Dispatch, the quantization of x by groups, and the cache blocking.
#include "kernels/i8gemm/i8gemm.h"

#include <emmintrin.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "kernels/cpu.h"

namespace statera::kernels::i8gemm {
namespace {

using qgemm::Layout;
using qgemm::Spec;

constexpr int64_t kUnit = 32;
constexpr int64_t kColumns = kBlocks * kRowBlock;
constexpr int kStrips = kBestRows / kColumns;  // that are at hand together
// Codes of so many rows and so much of k of x stay in the second-level cache; W is unpacked once for them. A row of up to `whole` is taken whole.
struct Panel {
  int64_t rows, k, whole;
};
constexpr Panel kSmallPanel{128, 1024, 2048}, kPanel{256, 2048, 2048}, kLargePanel{512, 1024, 2048};
constexpr int64_t kMostRows = kLargePanel.rows;
constexpr long kSmallCache = 3 << 18, kLargeCache = 3 << 19;  // bytes, from which on the next larger one leaves room for the rest

const Panel& panel() {
  static const long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
  static const Panel& here = cache >= kLargeCache ? kLargePanel : cache >= kSmallCache ? kPanel : kSmallPanel;
  return here;
}

std::atomic<const Kernels*> forced{nullptr};

const Kernels& in_use() {
  static constexpr Kernels kOfScalar{&kScalar, nullptr}, kOfAvx2{&kAvx2, nullptr}, kOfAvxVnni{&kAvx2, &kAvxVnni};
  static constexpr Kernels kOfAvx512{&kAvx512, nullptr}, kOfAmx{&kAvx512, &kAmx};
  static const bool has_avx_vnni = cpu_has("avx_vnni");
  const Kernels* given = forced.load(std::memory_order_relaxed);
  return given ? *given : table_of(kOfScalar, has_avx_vnni ? kOfAvxVnni : kOfAvx2, kOfAvx512, kOfAmx);
}

int64_t round_up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }

// Blocks of W over kMaxSegment of k, unpacked; all rows of x that are taken at once pass them.
struct StripBuffers {
  alignas(64) uint8_t codes[kBlocks * kMaxSegment * kRowBlock];
  alignas(64) float scale[kMaxSegment / kUnit * kBlocks * kRowBlock];
  alignas(64) int32_t zero[kMaxSegment / kUnit * kBlocks * kRowBlock];
  alignas(64) float totals[(kMostRows + kLongTileRows) * kColumns];  // of y, between the chunks of a panel
};

struct Product {
  const Table& t;
  const Micro* more;
  const Layout l;
  const Rows& x;
  const uint8_t* packed;
  const float* bias;
  float* y;
  int64_t ldy;

  const uint8_t* block(int64_t n) const { return packed + n / kRowBlock * l.block_bytes; }
  int64_t group_of(int64_t segment) const { return std::min(segment * x.segment / l.group, l.groups - 1); }

  // W of rows n.. over segments [first, last).
  Strip unpack(int64_t n, int blocks, int64_t first, int64_t last, StripBuffers& to) const {
    const int64_t begin = first * x.segment, end = round_up(std::min(last * x.segment, l.k), kUnit);
    Strip s{to.codes, (end - begin) * kRowBlock, blocks, (1 << l.bits) - 1, end - begin, x.segment, to.scale, l.zeros ? to.zero : nullptr, l.centre};
    if (l.centre < 1 << (l.bits - 1)) s.max_code = 2 * l.centre - 1;  // 7 bits, stored in 8
    for (int b = 0; b < blocks; ++b) {
      const uint8_t* from = block(n + b * kRowBlock);
      t.unpack(l, from, begin / kUnit, (end - begin) / kUnit, to.codes + b * s.block_bytes);
      for (int64_t i = first; i < last; ++i) {
        const int64_t at = ((i - first) * kBlocks + b) * kRowBlock;
        t.group(l, from, group_of(i), to.scale + at, l.zeros ? to.zero + at : nullptr);
      }
    }
    return s;
  }

  // A strip of W from row n on, over a chunk of k that begins at `segment`. What y holds between two chunks of a panel lies in `totals`, near;
  // y itself is read at the first chunk of a later panel and written at the last one.
  struct Part {
    Strip w;
    int64_t n, columns, segment;
    bool begins, ends;  // first, last chunk of its panel
    float* totals;      // of the tile's first row
  };

  // The tile of x at row m, of which `valid` rows are wanted. It is multiplied whole.
  void multiply(const Part& p, int64_t m, int64_t valid, float* totals) const {
    const Tile tile{x.q + m * x.stride + p.segment * x.segment * x.width, x.scale + x.at(m, p.segment), x.minus_sum + x.at(m, p.segment), x.width,
                    static_cast<int>(valid)};
    float* out = y + m * ldy + p.n;
    const bool whole = p.columns == kRowBlock * p.w.blocks && valid == x.width;
    const bool from_y = p.begins && p.segment > 0 && whole, to_y = p.ends && whole;
    if (p.begins && !from_y) start(p, valid, p.segment > 0 ? out : nullptr, totals);
    const auto micro = more ? more->micro : t.micro;
    micro(p.w, tile, from_y ? out : totals, from_y ? ldy : kColumns, to_y ? out : totals, to_y ? ldy : kColumns);
    if (p.ends && !whole)
      for (int64_t r = 0; r < valid; ++r) std::memcpy(out + r * ldy, totals + r * kColumns, p.columns * sizeof(float));
  }

  // What a tile starts with: y so far, the bias or nothing.
  void start(const Part& p, int64_t valid, const float* so_far, float* totals) const {
    std::memset(totals, 0, x.width * kColumns * sizeof(float));
    for (int64_t r = 0; r < valid; ++r) {
      if (so_far) std::memcpy(totals + r * kColumns, so_far + r * ldy, p.columns * sizeof(float));
      if (!so_far && bias) std::memcpy(totals + r * kColumns, bias + p.n, p.columns * sizeof(float));
    }
  }

  // Rows [m, m_end) of x against strips side by side: each tile of x is read once for all of them.
  void multiply_all(const Part* parts, int count, int64_t m, int64_t m_end) const {
    const bool touches_y = parts[0].ends || (parts[0].begins && parts[0].segment > 0);
    int64_t columns = 0;
    for (int i = 0; i < count; ++i) columns += parts[i].columns;
    for (int64_t first = m; m < m_end; m += x.width) {
      // y of the next tile comes from far while this one is multiplied.
      for (int64_t r = m + x.width; touches_y && r < std::min(m + 2 * x.width, m_end); ++r)
        for (int64_t c = 0; c < columns; c += kRowBlock) __builtin_prefetch(y + r * ldy + parts[0].n + c, 1);
      for (int i = 0; i < count; ++i) multiply(parts[i], m, std::min<int64_t>(x.width, m_end - m), parts[i].totals + (m - first) * kColumns);
    }
  }

  void run(int64_t m, int64_t n_begin, int64_t n_end) const {
    StripBuffers buffers[kStrips];
    const int64_t most = x.together == kTileCodes ? std::max(x.segment, kTileChunk) : kMaxSegment;
    const int64_t chunk = most / x.segment;  // segments
    const int64_t at_once = l.k <= panel().whole ? round_up(x.segments, chunk) : std::max(chunk, panel().k / x.segment / chunk * chunk);
    const int64_t share = rows_at_once(x, m);
    for (int64_t m0 = 0; m0 < m; m0 += share)
      for (int64_t first = 0; first < x.segments; first += at_once)
        for (int64_t n = n_begin; n < n_end; n += kStrips * kColumns) {
          const int64_t last = std::min(x.segments, first + at_once);
          for (int64_t s = first; s < last; s += chunk) {
            Part parts[kStrips] = {};
            int count = 0;
            for (int64_t at = n; at < n_end && count < kStrips; at += kColumns, ++count) {
              const int64_t columns = std::min(kColumns, n_end - at);
              const auto blocks = static_cast<int>((columns + kRowBlock - 1) / kRowBlock);
              const Strip w = unpack(at, blocks, s, std::min(last, s + chunk), buffers[count]);
              parts[count] = {w, at, columns, s, s == first, s + chunk >= last, buffers[count].totals};
            }
            multiply_all(parts, count, m0, std::min(m, m0 + share));
          }
        }
  }

  // The groups of rows one behind the other, while the blocks are in the cache.
  void decode(int64_t m, int64_t n_begin, int64_t n_end) const {
    alignas(64) float out[kMaxDecodeRows * kColumns];
    for (int64_t n = n_begin; n < n_end; n += kColumns) {
      const int64_t columns = std::min(kColumns, n_end - n);
      for (int64_t first = 0; first < m; first += x.width) {
        t.decode(l, block(n), columns > kRowBlock ? 2 : 1, first == 0 ? x : rows_from(x, first), x.width, out);
        for (int64_t r = first; r < std::min(m, first + x.width); ++r)
          for (int64_t c = 0; c < columns; ++c) y[r * ldy + n + c] = out[(r - first) * kColumns + c] + (bias ? bias[n + c] : 0.0f);
      }
    }
  }
};

// Returns the sum of the codes.
int32_t code(const Table& t, const float* x, int64_t k, float scale, int8_t* q) {
  if (scale > 0 && scale <= std::numeric_limits<float>::max()) return t.quantize(x, k, scale, q);
  std::memset(q, 0, static_cast<size_t>(k));  // also a maximum so small that its scale is 0 in f32; 0 times no number is none, too
  return 0;
}

// Words of four codes of R rows side by side, every `step` bytes. 4 x 4 words are transposed in SSE2, which every x86-64 has: one store of
// 16 bytes in place of four.
template <int R>
void weave(const Codes& codes, int64_t count, int8_t* to, int64_t step) {
  const auto load = [&](int r, int64_t i) {
    return r < R ? _mm_load_si128(reinterpret_cast<const __m128i*>(codes[r] + i)) : _mm_setzero_si128();
  };
  const auto store = [&](int8_t* at, __m128i words) {
    if constexpr (R == 4) return _mm_storeu_si128(reinterpret_cast<__m128i*>(at), words);
    if constexpr (R == 1) return _mm_storeu_si32(at, words);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(at), words);
    if constexpr (R == 3) _mm_storeu_si32(at + 8, _mm_unpackhi_epi64(words, words));
  };
  for (int64_t i = 0; i < count; i += 16, to += 4 * step) {
    const __m128i a = load(0, i), b = load(1, i), c = load(2, i), d = load(3, i);
    const __m128i low_ab = _mm_unpacklo_epi32(a, b), low_cd = _mm_unpacklo_epi32(c, d);
    const __m128i high_ab = _mm_unpackhi_epi32(a, b), high_cd = _mm_unpackhi_epi32(c, d);
    store(to, _mm_unpacklo_epi64(low_ab, low_cd));
    store(to + step, _mm_unpackhi_epi64(low_ab, low_cd));
    store(to + 2 * step, _mm_unpacklo_epi64(high_ab, high_cd));
    store(to + 3 * step, _mm_unpackhi_epi64(high_ab, high_cd));
  }
}

// Of every eight codes those of even places first.
void evens_first(int8_t* codes, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    auto* at = reinterpret_cast<__m128i*>(codes + i);
    const __m128i v = _mm_load_si128(at), halves = _mm_packus_epi16(_mm_and_si128(v, _mm_set1_epi16(255)), _mm_srli_epi16(v, 8));
    _mm_store_si128(at, _mm_unpacklo_epi32(halves, _mm_unpackhi_epi64(halves, halves)));
  }
}

// Codes of columns [begin, end) of rows [row, row + rows) of one tile, x [rows, ldx] from `begin` on with a scale each, a segment or what
// [begin, end) holds of it at a time; zeros up to the row's stride after the last.
void put(const Table& t, const float* x, int64_t ldx, int rows, int64_t begin, int64_t end, const float* scales, const Rows& out,
         int64_t row) {
  alignas(64) Codes codes;
  for (int64_t k = begin, count = 0; k < end; k += count) {
    const int64_t segment = k / out.segment, into = k % out.segment;
    count = std::min(out.segment - into, end - k);
    const bool piece = into > 0 || count < std::min(out.segment, out.k - k);
    const int64_t filled = k + count == out.k ? out.stride - k : count;
    for (int r = 0; r < rows; ++r) {
      const int64_t at = out.at(row + r, segment);
      const int32_t minus_sum = -code(t, x + r * ldx + (k - begin), count, scales[r], codes[r]);
      if (into == 0) out.scale[at] = scales[r];
      if (piece) std::atomic_ref(out.minus_sum[at]).fetch_add(minus_sum, std::memory_order_relaxed);
      else out.minus_sum[at] = minus_sum;
      std::memset(codes[r] + count, 0, filled - count);
      if (out.evens_first) evens_first(codes[r], filled);
    }
    lay(codes, rows, filled, out, row, k);
  }
}

// Calls run(i, rows) for rows of x that go together: [i, i + rows) of m, of one tile.
template <class Run>
void by_rows(int64_t m, int64_t first, const Rows& out, Run run) {
  for (int64_t i = 0, rows = 0; i < m; i += rows) {
    rows = std::min<int64_t>({kAtOnce, m - i, out.width - (first + i) % out.width});
    run(i, static_cast<int>(rows));
  }
}

}  // namespace

const Micro* micro_for(const Rows& x) {
  const Micro* more = in_use().more;
  return more && more->together == x.together ? more : nullptr;
}

int64_t segment_of(const Spec& w, int64_t x_group) {
  int64_t segment = 0;
  for (const int64_t group : {qgemm::group_size(w), x_group}) {
    if (group <= 0 || group >= w.k) continue;
    if (group % kUnit != 0) return 0;
    if (segment > 0 && std::max(segment, group) % std::min(segment, group) != 0) return 0;
    segment = segment > 0 ? std::min(segment, group) : group;
  }
  if (segment > kMaxSegment && segment % kMaxSegment != 0) return 0;
  if (segment == 0 || segment > kMaxSegment) segment = kMaxSegment;
  return std::min(segment, round_up(w.k, kUnit));
}

Rows tiles_of(int64_t m, int64_t k, int64_t segment) {
  Rows r;
  r.k = k;
  r.segment = segment;
  r.segments = segment > 0 ? (k + segment - 1) / segment : 0;
  r.width = segment <= kShortSegment ? kTileRows : kLongTileRows;
  const Micro* more = in_use().more;
  if (more && r.segments > 0 && (segment % more->together == 0 || r.segments == 1)) {
    r.width = more->width;
    r.together = more->together;
  }
  r.padded = round_up(m, r.width);
  r.stride = round_up(k, 64);
  return r;
}

Rows rows_of(int64_t m, int64_t k, int64_t segment, int bits) {
  Rows r = tiles_of(m, k, segment);
  const bool decode = in_use().table->decode != nullptr;
  if (m > (decode && !micro_for(r) ? kMostDecodeRows : kMaxDecodeRows)) return r;
  const int64_t groups = std::max<int64_t>(1, (m + kMaxDecodeRows - 1) / kMaxDecodeRows);
  r.width = static_cast<int>(std::max<int64_t>(1, (m + groups - 1) / groups));
  r.together = 4;
  r.decode = decode;
  r.evens_first = decode && bits == 4;
  r.padded = round_up(m, r.width);
  return r;
}

Rows rows_from(const Rows& x, int64_t first) {
  Rows r = x;
  r.q += first * x.stride;
  r.scale += first * x.segments;
  r.minus_sum += first * x.segments;
  r.padded -= first;
  return r;
}

int64_t rows_at_once(const Rows& x, int64_t m) {
  const int64_t tiles = (m + panel().rows - 1) / panel().rows;
  return tiles > 0 ? round_up((m + tiles - 1) / tiles, x.width) : 0;
}

void quantize(const float* x, int64_t ldx, int64_t m, int64_t x_group, const Rows& out, int64_t first) noexcept {
  const Table& t = *in_use().table;
  const int64_t group = x_group <= 0 ? out.k : x_group;
  by_rows(m, first, out, [&](int64_t i, int rows) {
    for (int64_t k = 0; k < out.k; k += group) {
      const int64_t end = std::min(out.k, k + group);
      const float* from = x + i * ldx + k;
      float scales[kAtOnce];
      for (int r = 0; r < rows; ++r) scales[r] = t.max_abs(from + r * ldx, end - k) / 127.5f;
      put(t, from, ldx, rows, k, end, scales, out, first + i);
    }
  });
}

void lay(const Codes& codes, int rows, int64_t count, const Rows& out, int64_t row, int64_t k) noexcept {
  const int64_t t = out.together;
  int8_t* to = out.q + row / out.width * out.width * out.stride + k / t * t * out.width + row % out.width * t;
  if (out.width == 1) {
    std::memcpy(to, codes[0], count);
  } else if (t == 4) {
    constexpr decltype(&weave<1>) kByRows[] = {nullptr, weave<1>, weave<2>, weave<3>, weave<4>};
    kByRows[rows](codes, count, to, out.width * t);
  } else {
    for (int r = 0; r < rows; ++r)
      for (int64_t i = 0; i < count; i += t) std::memcpy(to + r * t + i * out.width, codes[r] + i, t);
  }
}

float quantize_row(const float* x, int64_t k, int8_t* q) noexcept {
  const Table& t = *in_use().table;
  const float scale = t.max_abs(x, k) / 127.5f;
  code(t, x, k, scale, q);
  return scale;
}

void quantize_static_columns(const float* x, int64_t ldx, int64_t m, const float* scale, const Rows& out, int64_t first, int64_t begin,
                             int64_t end) noexcept {
  const Table& t = *in_use().table;
  by_rows(m, first, out, [&](int64_t i, int rows) { put(t, x + i * ldx, ldx, rows, begin, end, scale + i, out, first + i); });
}

void quantize_static(const float* x, int64_t ldx, int64_t m, const float* scale, const Rows& out, int64_t first) noexcept {
  quantize_static_columns(x, ldx, m, scale, out, first, 0, out.k);
}

void matmul(const Rows& x, int64_t m, const void* packed, const Spec& w, const float* bias, float* y, int64_t ldy, int64_t n_begin,
            int64_t n_end) noexcept {
  if (m <= 0 || w.k <= 0) {
    for (int64_t i = 0; i < m; ++i)
      for (int64_t n = n_begin; n < n_end; ++n) y[i * ldy + n] = bias ? bias[n] : 0.0f;
    return;
  }
  const Product p{*in_use().table, micro_for(x), qgemm::layout_of(w), x, static_cast<const uint8_t*>(packed), bias, y, ldy};
  if (x.decode) return p.decode(m, n_begin, n_end);
  if (p.more && p.more->begin) p.more->begin();
  p.run(m, n_begin, n_end);
  if (p.more && p.more->end) p.more->end();
}

Kernels active_kernels() { return in_use(); }

void set_kernels(const Kernels* kernels) { forced.store(kernels, std::memory_order_relaxed); }

}  // namespace statera::kernels::i8gemm
