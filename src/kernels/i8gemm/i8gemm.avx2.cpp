// Codes below 128: bytes multiplied and added in pairs, which cannot saturate, then collected in 16 bits for as many steps as codes of that
// size allow. Larger codes: their lower and upper four bits so, one after the other; widened to 16 bits where rows of x are one or two. A register
// holds eight rows of W by four k. Specification: i8gemm.scalar.cpp.
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

#include "kernels/i8gemm/vectors256.h"

namespace statera::kernels::i8gemm {
namespace {

using qgemm::Layout;
using qgemm::ScaleType;

constexpr int kRows = 4;  // of x at once
// Bytes of codes that decoding asks for before use: into the second-level cache, and from there into the first.
constexpr int kAhead = 8192, kSoon = 4096;

// Field stream to bytes, eight rows at a time: of the word window that holds four fields, each field is moved to its byte.
template <int B>
STATERA_INLINE __m256i quad(const uint32_t* words, int t, __m256i centre) {
  const int bit = 4 * B * t % 32;
  const uint32_t* from = words + 4 * B * t / 32 * kRowBlock;
  __m256i v = load(from);
  if constexpr (B == 8) return _mm256_add_epi8(v, centre);
  v = _mm256_srl_epi32(v, _mm_cvtsi32_si128(bit));
  if (bit + 4 * B > 32) v = _mm256_or_si256(v, _mm256_sll_epi32(load(from + kRowBlock), _mm_cvtsi32_si128(32 - bit)));
  const __m256i mask = _mm256_set1_epi32((1 << B) - 1);
  __m256i out = _mm256_and_si256(v, mask);
#pragma GCC unroll 4
  for (int i = 1; i < 4; ++i) out = _mm256_or_si256(out, _mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(v, i * B), mask), 8 * i));
  return _mm256_xor_si256(out, centre);  // two's complement to code: the highest bit turned
}

// What turns stored bytes into codes: the highest bit of each field.
template <int B>
STATERA_INLINE __m256i flip_of(const Layout& l) { return _mm256_set1_epi8(static_cast<char>(B == 4 ? l.centre * 17 : l.centre)); }

// The eight quads of a unit for eight rows, one after the other: f(t, codes) with t a constant. 4 bits: bytes of even and odd k interleaved give
// eight k a row, of which the two quads are taken.
template <int B, class F>
STATERA_INLINE void each_quad(const uint32_t* words, __m256i flip, F f) {
  if constexpr (B == 4) {
    const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) {
      const __m256i v = _mm256_xor_si256(load(words + w * kRowBlock), flip);
      const __m256i even = _mm256_and_si256(v, mask), odd = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
      const __m256 a = _mm256_castsi256_ps(_mm256_unpacklo_epi8(even, odd)), b = _mm256_castsi256_ps(_mm256_unpackhi_epi8(even, odd));
      f(2 * w, _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)));
      f(2 * w + 1, _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd)));
    }
  } else {
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t) f(t, quad<B>(words, t, flip));
  }
}

// The same as x lies in decode(): for 4 bits the codes of even k of each word, then those of odd k.
template <int B, class F>
STATERA_INLINE void each_decoded(const uint32_t* words, __m256i flip, F f) {
  if constexpr (B == 4) {
    const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) {
      const __m256i v = _mm256_xor_si256(load(words + w * kRowBlock), flip);
      f(2 * w, _mm256_and_si256(v, mask));
      f(2 * w + 1, _mm256_and_si256(_mm256_srli_epi16(v, 4), mask));
    }
  } else {
    each_quad<B>(words, flip, f);
  }
}

template <int B>
void unpack_bits(const Layout& l, const uint8_t* block, int64_t unit, int64_t units, uint8_t* codes) {
  const __m256i flip = flip_of<B>(l);
  const auto* words = reinterpret_cast<const uint32_t*>(block) + unit * B * kRowBlock;
  for (int64_t u = 0; u < units; ++u, words += B * kRowBlock, codes += 512)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half)
      each_quad<B>(words + half * 8, flip, [&](int t, __m256i quad) __attribute__((always_inline)) { store(codes + t * 64 + half * 32, quad); });
}

void unpack(const Layout& l, const uint8_t* block, int64_t unit, int64_t units, uint8_t* codes) noexcept {
  using Unpack = void (*)(const Layout&, const uint8_t*, int64_t, int64_t, uint8_t*);
  static constexpr Unpack kByBits[] = {nullptr,        nullptr,        unpack_bits<2>, unpack_bits<3>, unpack_bits<4>,
                                       unpack_bits<5>, unpack_bits<6>, nullptr,        unpack_bits<8>};
  kByBits[l.bits](l, block, unit, units, codes);
}

void group(const Layout& l, const uint8_t* block, int64_t g, float* scale, int32_t* zero) noexcept {
  for (int half = 0; half < 2; ++half) {
    const int64_t slot = g * kRowBlock + half * 8;
    const uint8_t* scales = block + l.scale_offset;
    __m256 v;
    if (l.scale == ScaleType::f32) {
      v = _mm256_loadu_ps(reinterpret_cast<const float*>(scales) + slot);
    } else {
      const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + 2 * slot));
      v = l.scale == ScaleType::f16 ? _mm256_cvtph_ps(h) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
    }
    _mm256_storeu_ps(scale + half * 8, v);
    if (zero) store(zero + half * 8, _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + l.zero_offset + slot))));
  }
}

// How many products of pairs with codes up to `most` 16 bits hold, of 8, 4, 2 or 1, which divide the quads of any k; 0: codes so large that the
// two halves of them are multiplied apart, eight products of each at a time.
constexpr int together(int most) { return most <= 15 ? 8 : most <= 31 ? 4 : most <= 63 ? 2 : most <= 127 ? 1 : 0; }

// To the next quad of x; what GCC cannot see through, or it works out the places of all quads ahead, which are more than there are registers.
STATERA_INLINE const int8_t* next(const int8_t* x, int64_t step) {
  x += step;
  __asm__("" : "+r"(x));
  return x;
}

// A sum that is there now: GCC would put additions off to the end and keep every product until then.
STATERA_INLINE __m256i now(__m256i v) {
  __asm__("" : "+x"(v));
  return v;
}

// sums[r][h] += codes * x over k, R rows of x of which the next quad lies `step` bytes further, two vectors of eight rows of W; S = together() of
// the largest code. A function of its own, so that sums of pairs have the registers.
template <int R, int S>
__attribute__((noinline)) void narrow(const uint8_t* codes, const int8_t* x, int64_t step, int64_t k, __m256i (*sums)[2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (const uint8_t* end = codes + k * kRowBlock; codes != end; codes += 64 * S) {
    __m256i pairs[R][2];
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s, x = next(x, step)) {
      const __m256i low = load(codes + 64 * s), high = load(codes + 64 * s + 32);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m256i xr = _mm256_set1_epi32(four(x + 4 * r));
        const __m256i a = _mm256_maddubs_epi16(low, xr), b = _mm256_maddubs_epi16(high, xr);
        pairs[r][0] = now(s == 0 ? a : _mm256_add_epi16(pairs[r][0], a));
        pairs[r][1] = now(s == 0 ? b : _mm256_add_epi16(pairs[r][1], b));
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(pairs[r][h], ones));
  }
}

// Both halves of codes of 8 bits.
struct Halves {
  __m256i low, high;
};
STATERA_INLINE Halves halves(__m256i codes) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(codes, mask), _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask)};
}
STATERA_INLINE __m256i joined(__m256i low, __m256i high) {
  return _mm256_add_epi32(_mm256_madd_epi16(low, _mm256_set1_epi16(1)), _mm256_madd_epi16(high, _mm256_set1_epi16(16)));
}

template <int R>
__attribute__((noinline)) void wide(const uint8_t* codes, const int8_t* x, int64_t step, int64_t k, __m256i (*sums)[2]) {
  const uint8_t* end = codes + k * kRowBlock;
  for (int h = 0; h < 2; ++h) {
    const int8_t* xh = x;
    for (const uint8_t* c = codes + 32 * h; c < end; c += 64 * 8) {
      __m256i low[R], high[R];
#pragma GCC unroll 8
      for (int s = 0; s < 8; ++s, xh = next(xh, step)) {
        const Halves w = halves(load(c + 64 * s));
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const __m256i xr = _mm256_set1_epi32(four(xh + 4 * r));
          const __m256i a = _mm256_maddubs_epi16(w.low, xr), b = _mm256_maddubs_epi16(w.high, xr);
          low[r] = now(s == 0 ? a : _mm256_add_epi16(low[r], a));
          high[r] = now(s == 0 ? b : _mm256_add_epi16(high[r], b));
        }
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[r][h] = _mm256_add_epi32(sums[r][h], joined(low[r], high[r]));
    }
  }
}

// Either.
using Sum = void (*)(const uint8_t*, const int8_t*, int64_t, int64_t, __m256i (*)[2]);
// What a segment of 16 rows of W adds to R rows of y.
struct Segment {
  Sum sum;
  const uint8_t* codes;
  int64_t k;
  __m256 scale[2];
  __m256i zero[2];
  bool zeros;  // else every zero point is centre
  int32_t centre;
};

// Rows of x from `from` on and their totals.
template <int R>
void add_rows(const Segment& w, const Tile& x, int from, const int8_t* q, int64_t s, __m256 (*total)[2]) {
  const int32_t* minus_sum = x.minus_sum + s * x.rows + from;
  const float* scale = x.scale + s * x.rows + from;
  __m256i sums[R][2];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const int32_t m = minus_sum[r];
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
      sums[r][h] = w.zeros ? _mm256_mullo_epi32(w.zero[h], _mm256_set1_epi32(m)) : _mm256_set1_epi32(w.centre * m);
  }
  w.sum(w.codes, q + 4 * from, 4 * x.rows, w.k, sums);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const __m256 xs = _mm256_broadcast_ss(scale + r);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
      total[from + r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][h]), _mm256_mul_ps(w.scale[h], xs), total[from + r][h]);
  }
}

template <int R>
Sum sum_of(int max_code) {
  switch (together(max_code)) {
    case 8: return narrow<R, 8>;
    case 4: return narrow<R, 4>;
    case 2: return narrow<R, 2>;
    case 1: return narrow<R, 1>;
    default: return wide<R>;
  }
}

// Codes of a segment stay in the first-level cache while the rows of the tile pass.
void micro(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept {
  using Add = void (*)(const Segment&, const Tile&, int, const int8_t*, int64_t, __m256 (*)[2]);
  static constexpr Add kAdd[] = {nullptr, add_rows<1>, add_rows<2>, add_rows<3>, add_rows<4>};
  const Sum sums[] = {nullptr, sum_of<1>(w.max_code), sum_of<2>(w.max_code), sum_of<3>(w.max_code), sum_of<4>(w.max_code)};
  const int turns = (x.rows + kRows - 1) / kRows, share = (x.rows + turns - 1) / turns;
  __m256 total[kLongTileRows][2];
  for (int b = 0; b < w.blocks; ++b, init += kRowBlock, y += kRowBlock) {
    for (int r = 0; r < x.rows; ++r)
      for (int h = 0; h < 2; ++h) total[r][h] = _mm256_loadu_ps(init + r * ld_init + 8 * h);
    const int8_t* q = x.q;
    Segment part{nullptr, w.codes + b * w.block_bytes, w.segment, {}, {}, w.zero != nullptr, w.centre};
    for (int64_t k = 0, s = 0; k < w.k; k += w.segment, ++s, part.codes += w.segment * kRowBlock, q += w.segment * x.rows) {
      if (w.k - k < w.segment) part.k = w.k - k;
      for (int h = 0; h < 2; ++h) {
        const int64_t at = (s * kBlocks + b) * kRowBlock + 8 * h;
        part.scale[h] = _mm256_loadu_ps(w.scale + at);
        if (w.zero) part.zero[h] = load(w.zero + at);
      }
      for (int r = 0, rows; r < x.rows; r += rows) {
        rows = x.rows - r < share ? x.rows - r : share;
        part.sum = sums[rows];
        kAdd[rows](part, x, r, q, s, total);
      }
    }
    for (int r = 0; r < x.rows; ++r)
      for (int h = 0; h < 2; ++h) _mm256_storeu_ps(y + r * ldy + 8 * h, total[r][h]);
  }
}

STATERA_INLINE void ask(const uint32_t* words) {
  _mm_prefetch(reinterpret_cast<const char*>(words) + kAhead, _MM_HINT_T1);
  _mm_prefetch(reinterpret_cast<const char*>(words) + kSoon, _MM_HINT_T0);
}

// The sums of a segment of `units` for R rows of x, 4 * width bytes a quad, and 8 H rows of W.
template <int B, int R, int H>
STATERA_INLINE void sum_units(const uint32_t* words, const int8_t* q, int64_t width, int64_t units, __m256i flip, __m256i (&acc)[R][H]) {
  constexpr int kTogether = together((1 << B) - 1);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t u = 0; u < units; ++u, words += B * kRowBlock, q += 32 * width) {
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) ask(words + b * kRowBlock);
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      __m256i pairs[R], high[R];
      const int8_t* x = q;
      each_decoded<B>(words + 8 * h, flip, [&](int t, __m256i codes) __attribute__((always_inline)) {
        const Halves both = B == 8 ? halves(codes) : Halves{codes, codes};
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const __m256i xr = _mm256_set1_epi32(four(x + 4 * r));
          const __m256i p = _mm256_maddubs_epi16(both.low, xr);
          if constexpr (B == 8) {
            const __m256i p_high = _mm256_maddubs_epi16(both.high, xr);
            pairs[r] = now(t == 0 ? p : _mm256_add_epi16(pairs[r], p));
            high[r] = now(t == 0 ? p_high : _mm256_add_epi16(high[r], p_high));
            if (t == 7) acc[r][h] = _mm256_add_epi32(acc[r][h], joined(pairs[r], high[r]));
          } else {
            pairs[r] = now(t % kTogether == 0 ? p : _mm256_add_epi16(pairs[r], p));
            if (t % kTogether == kTogether - 1) acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(pairs[r], ones));
          }
        }
        x = next(x, 4 * width);
      });
    }
  }
}

// The same for one or two rows of x, of codes of 8 bits as they are stored, less the centre: widened to 16, which is less work than their halves.
template <int R, int H>
STATERA_INLINE void sum_bytes(const uint32_t* words, const int8_t* q, int64_t width, int64_t units, __m256i (&acc)[R][H]) {
  const auto low = [](__m256i v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); };
  const auto high = [](__m256i v) { return _mm256_srai_epi16(v, 8); };
  for (int64_t t = 0; t < 8 * units; ++t, words += kRowBlock, q += 4 * width) {
    ask(words);
    __m256i even[H], odd[H];
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      const __m256i v = load(words + 8 * h);
      even[h] = low(v);
      odd[h] = high(v);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256i x = _mm256_set1_epi32(four(q + 4 * r)), xe = low(x), xo = high(x);
#pragma GCC unroll 2
      for (int h = 0; h < H; ++h) {
        const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(even[h], xe), _mm256_madd_epi16(odd[h], xo));
        acc[r][h] = _mm256_add_epi32(acc[r][h], both);
      }
    }
  }
}

// R of x.width rows, `from` the first, and 8 H rows of a block, unpacked in registers on their way from memory.
template <int B, int R, int H>
void decode_rows(const Layout& l, const uint8_t* block, int half, const Rows& x, int from, float* y) {
  constexpr bool kBytes = B == 8 && R <= 2;
  const auto* words = reinterpret_cast<const uint32_t*>(block) + 8 * half;
  const __m256i flip = flip_of<B>(l);
  const int8_t* q = x.q + 4 * from;
  const int64_t units = x.segment / 32;
  qgemm::prefetch_gap(l, block, kAhead);
  __m256 total[R][H];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) total[r][h] = _mm256_setzero_ps();
  for (int64_t s = 0, left = l.units; s < x.segments; ++s, left -= units) {
    const int64_t g = s * x.segment / l.group < l.groups ? s * x.segment / l.group : l.groups - 1, here = left < units ? left : units;
    qgemm::prefetch_group(l, block + l.block_bytes, g);
    alignas(32) float scale[kRowBlock];
    alignas(32) int32_t zero[kRowBlock];
    group(l, block, g, scale, l.zeros ? zero : nullptr);
    __m256i acc[R][H];
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      __m256i z = l.zeros ? load(zero + 8 * (half + h)) : _mm256_set1_epi32(l.centre);
      if constexpr (kBytes) z = _mm256_sub_epi32(z, _mm256_set1_epi32(l.centre));
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][h] = _mm256_mullo_epi32(z, _mm256_set1_epi32(x.minus_sum[s * x.width + from + r]));
    }
    if constexpr (kBytes) sum_bytes(words, q, x.width, here, acc);
    else sum_units<B>(words, q, x.width, here, flip, acc);
    words += here * B * kRowBlock;
    q += here * 32 * x.width;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < H; ++h) {
        const __m256 both = _mm256_mul_ps(_mm256_load_ps(scale + 8 * (half + h)), _mm256_set1_ps(x.scale[s * x.width + from + r]));
        total[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][h]), both, total[r][h]);
      }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) _mm256_storeu_ps(y + (from + r) * kBlocks * kRowBlock + 8 * (half + h), total[r][h]);
}

// Few rows take both halves of a block at once, as it streams; of more, as many as have room in registers.
template <int B>
void decode_bits(const Layout& l, const uint8_t* block, const Rows& x, int m, float* y) {
  if (m == 1) return decode_rows<B, 1, 2>(l, block, 0, x, 0, y);
  if (m == 2) return decode_rows<B, 2, 2>(l, block, 0, x, 0, y);
  using Some = void (*)(const Layout&, const uint8_t*, int, const Rows&, int, float*);
  static constexpr Some kByRows[] = {nullptr, nullptr, decode_rows<B, 2, 1>, decode_rows<B, 3, 1>, decode_rows<B, 4, 1>};
  const int first = m <= 4 ? m : (m + 1) / 2;
  for (int half = 0; half < 2; ++half) {
    kByRows[first](l, block, half, x, 0, y);
    if (m > first) kByRows[m - first](l, block, half, x, first, y);
  }
}

void decode(const Layout& l, const uint8_t* block, int blocks, const Rows& x, int m, float* y) noexcept {
  using Decode = void (*)(const Layout&, const uint8_t*, const Rows&, int, float*);
  static constexpr Decode kByBits[] = {nullptr,        nullptr,        decode_bits<2>, decode_bits<3>, decode_bits<4>,
                                       decode_bits<5>, decode_bits<6>, nullptr,        decode_bits<8>};
  for (int b = 0; b < blocks; ++b) kByBits[l.bits](l, block + b * l.block_bytes, x, m, y + b * kRowBlock);
}

// Of bits: without a sign, floats are ordered as integers are, NaN above all.
float max_abs(const float* x, int64_t k) noexcept {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most8 = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) most8 = _mm256_max_epi32(_mm256_and_si256(magnitude, load(x + i)), most8);
  int32_t lanes[8], most = 0;
  store(lanes, most8);
  for (int32_t lane : lanes) most = lane > most ? lane : most;
  for (; i < k; ++i) {
    const int32_t bits = __builtin_bit_cast(int32_t, x[i]) & 0x7fffffff;
    most = bits > most ? bits : most;
  }
  return __builtin_bit_cast(float, most);
}

STATERA_INLINE __m256i quantize8(const float* x, float scale) {
  const __m256 v = _mm256_div_ps(_mm256_loadu_ps(x), _mm256_set1_ps(scale));
  const __m256 near = _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(-128.0f)), _mm256_set1_ps(127.0f));
  return _mm256_cvttps_epi32(_mm256_round_ps(near, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

STATERA_INLINE void store8(__m256i t, int8_t* q) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(q), _mm_packs_epi16(words, words));
}

int32_t quantize(const float* x, int64_t k, float scale, int8_t* q) noexcept {
  __m256i sums = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    const __m256i t = quantize8(x + i, scale);
    sums = _mm256_add_epi32(sums, t);
    store8(t, q + i);
  }
  int32_t lanes[8], sum = 0;
  if (i < k) {
    float tail[8] = {};
    int8_t out[8];
    for (int64_t j = 0; i + j < k; ++j) tail[j] = x[i + j];
    const __m256i t = quantize8(tail, scale);
    sums = _mm256_add_epi32(sums, t);
    store8(t, out);
    for (int64_t j = 0; i + j < k; ++j) q[i + j] = out[j];
  }
  store(lanes, sums);
  for (int32_t lane : lanes) sum += lane;
  return sum;
}

}  // namespace

const Table kAvx2 = {unpack, group, micro, decode, max_abs, quantize};

}  // namespace statera::kernels::i8gemm
