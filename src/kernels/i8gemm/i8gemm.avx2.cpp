// Codes below 128: bytes multiplied and added in pairs, which cannot saturate, then collected in 16 bits for as many steps as codes of that
// size allow. Larger codes: widened to 16 bits first. A register holds eight rows of W by four k. Specification: i8gemm.scalar.cpp.
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

#include "kernels/i8gemm/micro256.h"

namespace statera::kernels::i8gemm {
namespace {

using qgemm::Layout;
using qgemm::ScaleType;

constexpr int kRows = 4;      // of x at once
constexpr int kAhead = 2048;  // bytes of codes that decoding asks for, into the second-level cache, before use

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

// sums[r][0..16) = codes * x over k for R rows; a step of k lies `step` bytes after the one before. `steps` of them fit 16 bits.
template <int R>
void narrow(const uint8_t* codes, const int8_t* x, int64_t step, int64_t k, int steps, int32_t (*sums)[kRowBlock]) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[R][2];
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h) store(sums[r] + 8 * h, _mm256_setzero_si256());
  for (int64_t i = 0; i < k / 4;) {
    const int64_t stop = i + steps < k / 4 ? i + steps : k / 4;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (; i < stop; ++i) {
      const __m256i low = load(codes + i * 64), high = load(codes + i * 64 + 32);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m256i xr = _mm256_set1_epi32(four(x + i * step + 4 * r));
        acc[r][0] = _mm256_add_epi16(acc[r][0], _mm256_maddubs_epi16(low, xr));
        acc[r][1] = _mm256_add_epi16(acc[r][1], _mm256_maddubs_epi16(high, xr));
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) store(sums[r] + 8 * h, _mm256_add_epi32(load(sums[r] + 8 * h), _mm256_madd_epi16(acc[r][h], ones)));
  }
}

// The same for codes of any size.
template <int R>
void wide(const uint8_t* codes, const int8_t* x, int64_t step, int64_t k, int32_t (*sums)[kRowBlock]) {
  __m256i acc[R][4];
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) acc[r][q] = _mm256_setzero_si256();
  for (int64_t i = 0; i < k / 4; ++i) {
    __m256i xr[R];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) xr[r] = _mm256_cvtepi8_epi16(_mm_set1_epi32(four(x + i * step + 4 * r)));
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const __m256i w = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i * 64 + 16 * q)));
#pragma GCC unroll 2
      for (int r = 0; r < R; ++r) acc[r][q] = _mm256_add_epi32(acc[r][q], _mm256_madd_epi16(w, xr[r]));
    }
  }
  for (int r = 0; r < R; ++r)
    for (int q = 0; q < 4; q += 2)  // lanes after hadd: rows 0 1 4 5 | 2 3 6 7 of these eight
      store(sums[r] + 4 * q, _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[r][q], acc[r][q + 1]), _MM_SHUFFLE(3, 1, 2, 0)));
}

void products(const Strip& w, const uint8_t* codes, const int8_t* x, int64_t step, int rows, int64_t k, int32_t (*sums)[kRowBlock]) {
  if (w.max_code > 127) {
    for (int r = 0; r < rows; r += 2) (rows - r > 1 ? wide<2> : wide<1>)(codes, x + 4 * r, step, k, sums + r);
    return;
  }
  const int steps = 32767 / (256 * w.max_code);
  using Narrow = void (*)(const uint8_t*, const int8_t*, int64_t, int64_t, int, int32_t(*)[kRowBlock]);
  static constexpr Narrow kByRows[] = {nullptr, narrow<1>, narrow<2>, narrow<3>, narrow<4>};
  kByRows[rows](codes, x, step, k, steps, sums);
}

void micro(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept {
  micro_of<kRows, products>(w, x, init, ld_init, y, ldy);
}

// The sums of a segment of `units` for R rows of x, 4 * width bytes a quad, and 8 H rows of W; sums of pairs are collected in 16 bits as long as
// they fit.
template <int B, int R, int H>
STATERA_INLINE void sum_units(const uint32_t* words, const int8_t* q, int64_t width, int64_t units, __m256i flip, __m256i (&acc)[R][H]) {
  constexpr int kTogether = B <= 4 ? 8 : B == 5 ? 4 : 2;  // quads: each adds up to 2 * 128 (2^B - 1)
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t u = 0; u < units; ++u, words += B * kRowBlock, q += 32 * width) {
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) _mm_prefetch(reinterpret_cast<const char*>(words) + 64 * b + kAhead, _MM_HINT_T1);
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      __m256i pairs[R];
      each_quad<B>(words + 8 * h, flip, [&](int t, __m256i codes) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const __m256i p = _mm256_maddubs_epi16(codes, _mm256_set1_epi32(four(q + 4 * (t * width + r))));
          pairs[r] = t % kTogether == 0 ? p : _mm256_add_epi16(pairs[r], p);
          if (t % kTogether == kTogether - 1) acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(pairs[r], ones));
        }
      });
    }
  }
}

// Codes of 8 bits as they are stored, less the centre, widened to 16.
template <int R, int H>
STATERA_INLINE void sum_bytes(const uint32_t* words, const int8_t* q, int64_t width, int64_t units, __m256i (&acc)[R][H]) {
  const auto low = [](__m256i v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); };
  const auto high = [](__m256i v) { return _mm256_srai_epi16(v, 8); };
  for (int64_t t = 0; t < 8 * units; ++t, words += kRowBlock, q += 4 * width) {
    _mm_prefetch(reinterpret_cast<const char*>(words) + kAhead, _MM_HINT_T1);
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
  const auto* words = reinterpret_cast<const uint32_t*>(block) + 8 * half;
  const __m256i flip = flip_of<B>(l);
  const int8_t* q = x.q + 4 * from;
  const int64_t units = x.segment / 32;
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
      if constexpr (B == 8) z = _mm256_sub_epi32(z, _mm256_set1_epi32(l.centre));
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][h] = _mm256_mullo_epi32(z, _mm256_set1_epi32(x.minus_sum[(from + r) * x.segments + s]));
    }
    if constexpr (B == 8) sum_bytes(words, q, x.width, here, acc);
    else sum_units<B>(words, q, x.width, here, flip, acc);
    words += here * B * kRowBlock;
    q += here * 32 * x.width;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < H; ++h) {
        const __m256 both = _mm256_mul_ps(_mm256_load_ps(scale + 8 * (half + h)), _mm256_set1_ps(x.scale[(from + r) * x.segments + s]));
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
