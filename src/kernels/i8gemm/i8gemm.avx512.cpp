// VNNI: four products of unsigned code bytes and signed x bytes are summed into each int32 lane without saturation; the 16 lanes are the
// rows of a block. Specification: i8gemm.scalar.cpp.
#include "kernels/i8gemm/i8gemm.h"

#include <immintrin.h>

#include <utility>

namespace statera::kernels::i8gemm {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

using qgemm::Layout;
using qgemm::ScaleType;

// Bytes of codes that decoding asks for before use: into the second-level cache, and from there into the first.
constexpr int kAhead = 8192, kSoon = 4096;

// Four codes of 4k.. per 32-bit lane, one a byte, from the stream of 32 fields of B bits in B words.
template <int B>
struct Quads {
  __m512i centre;
  explicit STATERA_INLINE Quads(int c) : centre(_mm512_set1_epi8(static_cast<char>(c))) {}
  // Byte i of each 32-bit half of a 64-bit lane: bits [at + i*B, + 8) of that half; what stands above B bits is masked off.
  template <int At>
  static STATERA_INLINE __m512i offsets() {
    constexpr auto byte = [](int i) { return static_cast<long long>((i / 4 * 32 + At + i % 4 * B) & 63) << 8 * i; };
    return _mm512_set1_epi64(byte(0) | byte(1) | byte(2) | byte(3) | byte(4) | byte(5) | byte(6) | byte(7));
  }
  // Quad T (of 8) of the unit at `words`.
  template <int T>
  STATERA_INLINE __m512i at(const uint32_t* words) const {
    constexpr int kBit = 4 * B * T % 32;
    const uint32_t* from = words + 4 * B * T / 32 * kRowBlock;
    __m512i v = _mm512_loadu_si512(from);
    if constexpr (B == 8) return _mm512_add_epi8(v, centre);
    if constexpr (kBit + 4 * B > 32) {
      v = _mm512_or_si512(_mm512_srli_epi32(v, kBit), _mm512_slli_epi32(_mm512_loadu_si512(from + kRowBlock), 32 - kBit));
      v = _mm512_multishift_epi64_epi8(offsets<0>(), v);
    } else {
      v = _mm512_multishift_epi64_epi8(offsets<kBit>(), v);
    }
    return _mm512_ternarylogic_epi32(v, centre, _mm512_set1_epi8(static_cast<char>((1 << B) - 1)), 0x28);  // (v ^ centre) & mask
  }
};

// For x whose evens lie first, of B = 4: the codes of even k of word T / 2 for even T, those of odd k for odd T, sixteenfold where kSixteenfold.
template <int T, bool kSixteenfold>
STATERA_INLINE __m512i nibbles(const uint32_t* words, __m512i both_centres) {
  __m512i v = _mm512_loadu_si512(words + T / 2 * kRowBlock);
  const bool upper = T % 2 == 1 && kSixteenfold;
  if (T % 2 == 1 && !kSixteenfold) v = _mm512_srli_epi16(v, 4);
  return _mm512_ternarylogic_epi32(v, both_centres, _mm512_set1_epi8(static_cast<char>(upper ? 0xf0 : 0x0f)), 0x28);
}

template <int B>
void unpack_bits(const Layout& l, const uint8_t* block, int64_t unit, int64_t units, uint8_t* codes) {
  const Quads<B> quads(l.centre);
  const auto* words = reinterpret_cast<const uint32_t*>(block) + unit * B * kRowBlock;
  for (int64_t u = 0; u < units; ++u, words += B * kRowBlock, codes += 512)
    [&]<int... T>(std::integer_sequence<int, T...>) __attribute__((always_inline)) {
      (_mm512_storeu_si512(codes + T * 64, quads.template at<T>(words)), ...);
    }
    (std::make_integer_sequence<int, 8>());
}

void unpack(const Layout& l, const uint8_t* block, int64_t unit, int64_t units, uint8_t* codes) noexcept {
  using Unpack = void (*)(const Layout&, const uint8_t*, int64_t, int64_t, uint8_t*);
  static constexpr Unpack kByBits[] = {nullptr,        nullptr,        unpack_bits<2>, unpack_bits<3>, unpack_bits<4>,
                                       unpack_bits<5>, unpack_bits<6>, nullptr,        unpack_bits<8>};
  kByBits[l.bits](l, block, unit, units, codes);
}

STATERA_INLINE __m512 scale_of(const Layout& l, const uint8_t* block, int64_t g) {
  const uint8_t* scales = block + l.scale_offset;
  if (l.scale == ScaleType::f32) return _mm512_loadu_ps(scales + g * 64);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + g * 32));
  if (l.scale == ScaleType::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

STATERA_INLINE __m512i zero_of(const Layout& l, const uint8_t* block, int64_t g) {
  if (!l.zeros) return _mm512_set1_epi32(l.centre);
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + l.zero_offset + g * kRowBlock)));
}

void group(const Layout& l, const uint8_t* block, int64_t g, float* scale, int32_t* zero) noexcept {
  _mm512_storeu_ps(scale, scale_of(l, block, g));
  if (zero) _mm512_storeu_si512(zero, zero_of(l, block, g));
}

// sum + zero * minus_sum: one instruction where both fit 16 bits.
STATERA_INLINE __m512i minus_zeros(__m512i sum, __m512i zero, int32_t minus_sum, bool is_short) {
  const __m512i s = _mm512_set1_epi32(minus_sum);
  return is_short ? _mm512_dpwssd_epi32(sum, zero, s) : _mm512_add_epi32(sum, _mm512_mullo_epi32(zero, s));
}

STATERA_INLINE __m512i four(const int8_t* x) {
  int32_t v;
  __builtin_memcpy(&v, x, 4);
  return _mm512_set1_epi32(v);
}

// acc[r][b] = start[r] + codes * x over k, a positive multiple of 8.
STATERA_INLINE void multiply(__m512i (&acc)[kTileRows][1], const uint8_t* codes, int64_t, const int8_t* x, int64_t k, const int32_t* start) {
#pragma GCC unroll 7
  for (int r = 0; r < kTileRows; ++r) acc[r][0] = _mm512_set1_epi32(start[r]);
  for (int64_t i = 0; i < k; i += 4)
#pragma GCC unroll 7
    for (int r = 0; r < kTileRows; ++r)
      acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], _mm512_loadu_si512(codes + i * kRowBlock), four(x + kTileRows * i + 4 * r));
}

// The loop of prefill, written out: GCC copies the sums out of their registers and back at every turn, or into memory.
STATERA_INLINE void multiply(__m512i (&acc)[kTileRows][2], const uint8_t* codes, int64_t block_bytes, const int8_t* x, int64_t k,
                             const int32_t* start) {
#define STATERA_START(r) "vpbroadcastd 4*" #r "(%[start]), %[a" #r "0]\n\tvmovdqa64 %[a" #r "0], %[a" #r "1]\n\t"
#define STATERA_ROW(r, step)                              \
  "vpbroadcastd 4*" #r "+28*" #step "(%[x]), %%zmm31\n\t" \
  "vpdpbusd %%zmm31, %%zmm29, %[a" #r "0]\n\t"            \
  "vpdpbusd %%zmm31, %%zmm30, %[a" #r "1]\n\t"
#define STATERA_STEP(i)                                   \
  "vmovdqu64 64*" #i "(%[codes]), %%zmm29\n\t"            \
  "vmovdqu64 64*" #i "(%[codes],%[block]), %%zmm30\n\t"   \
  STATERA_ROW(0, i) STATERA_ROW(1, i) STATERA_ROW(2, i) STATERA_ROW(3, i) STATERA_ROW(4, i) STATERA_ROW(5, i) STATERA_ROW(6, i)
  static_assert(kTileRows == 7);
  const uint8_t* end = codes + k * kRowBlock;
  asm volatile(
      STATERA_START(0) STATERA_START(1) STATERA_START(2) STATERA_START(3) STATERA_START(4) STATERA_START(5) STATERA_START(6)
      ".p2align 5\n\t"
      "1:\n\t"
      "prefetcht0 512(%[x])\n\t"
      STATERA_STEP(0) STATERA_STEP(1)
      "add $128, %[codes]\n\t"
      "add $56, %[x]\n\t"
      "cmp %[end], %[codes]\n\t"
      "jne 1b"
      : [a00] "=&v"(acc[0][0]), [a01] "=&v"(acc[0][1]), [a10] "=&v"(acc[1][0]), [a11] "=&v"(acc[1][1]),
        [a20] "=&v"(acc[2][0]), [a21] "=&v"(acc[2][1]), [a30] "=&v"(acc[3][0]), [a31] "=&v"(acc[3][1]),
        [a40] "=&v"(acc[4][0]), [a41] "=&v"(acc[4][1]), [a50] "=&v"(acc[5][0]), [a51] "=&v"(acc[5][1]),
        [a60] "=&v"(acc[6][0]), [a61] "=&v"(acc[6][1]),
        [codes] "+r"(codes), [x] "+r"(x)
      : [block] "r"(block_bytes), [end] "r"(end), [start] "r"(start)
      : "zmm29", "zmm30", "zmm31", "cc", "memory");
#undef STATERA_STEP
#undef STATERA_ROW
#undef STATERA_START
}

// Seven rows of x by B blocks, for short segments: 14 sums and 14 totals stay in registers, and enough sums are on their way to hide an
// instruction's latency. kZeros: W has zero points of its own.
template <int B, bool kZeros>
void micro_blocks(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) {
  constexpr int R = kTileRows;
  const uint8_t* codes = w.codes;
  const int8_t* q = x.q;
  const float *scale = w.scale, *x_scale = x.scale;
  const int32_t *zero = w.zero, *minus_sum = x.minus_sum;
  int32_t start[R] = {};
  __m512 total[R][B];
#pragma GCC unroll 7
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) total[r][b] = _mm512_loadu_ps(init + r * ld_init + b * kRowBlock);
  for (int64_t k = w.k; k > 0; k -= w.segment) {
    const int64_t count = k < w.segment ? k : w.segment;
    __m512i acc[R][B];
    if constexpr (!kZeros)
#pragma GCC unroll 7
      for (int r = 0; r < R; ++r) start[r] = w.centre * minus_sum[r];
    multiply(acc, codes, w.block_bytes, q, count, start);
#pragma GCC unroll 7
    for (int r = 0; r < R; ++r) {
      const __m512 xs = _mm512_set1_ps(x_scale[r]);
#pragma GCC unroll 2
      for (int b = 0; b < B; ++b) {
        if constexpr (kZeros) acc[r][b] = minus_zeros(acc[r][b], _mm512_loadu_si512(zero + b * kRowBlock), minus_sum[r], true);
        const __m512 both = _mm512_mul_ps(_mm512_loadu_ps(scale + b * kRowBlock), xs);
        total[r][b] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][b]), both, total[r][b]);
      }
    }
    codes += count * kRowBlock;
    q += count * R;
    minus_sum += R;
    x_scale += R;
    scale += kBlocks * kRowBlock;
    zero += kZeros ? kBlocks * kRowBlock : 0;
  }
#pragma GCC unroll 7
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) _mm512_storeu_ps(y + r * ldy + b * kRowBlock, total[r][b]);
}

// Twelve rows by B blocks: with long segments the totals are seldom needed and may lie in memory. A function of its own, or GCC keeps sums
// in memory, too.
template <int B>
__attribute__((noinline)) void multiply_long(const uint8_t* codes, int64_t block_bytes, const int8_t* x, int64_t k, int32_t* sums) {
  constexpr int R = kLongTileRows;
  __m512i acc[R][B];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) acc[r][b] = _mm512_setzero_si512();
  for (int64_t i = 0; i < k; i += 4) {
    __m512i w[B];
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) w[b] = _mm512_loadu_si512(codes + b * block_bytes + i * kRowBlock);
    _mm_prefetch(reinterpret_cast<const char*>(x + R * i + 512), _MM_HINT_T0);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const __m512i xr = four(x + R * i + 4 * r);
#pragma GCC unroll 2
      for (int b = 0; b < B; ++b) acc[r][b] = _mm512_dpbusd_epi32(acc[r][b], w[b], xr);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) _mm512_store_si512(sums + (r * B + b) * kRowBlock, acc[r][b]);
}

template <int B>
void micro_long(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) {
  constexpr int R = kLongTileRows;
  alignas(64) int32_t sums[R * B * kRowBlock];
  for (int64_t k = 0, s = 0; k < w.k; k += w.segment, ++s) {
    multiply_long<B>(w.codes + k * kRowBlock, w.block_bytes, x.q + R * k, w.k - k < w.segment ? w.k - k : w.segment, sums);
    const float* from = k == 0 ? init : y;
    const int64_t ld_from = k == 0 ? ld_init : ldy;
    for (int r = 0; r < R; ++r)
      for (int b = 0; b < B; ++b) {
        const int64_t at = (s * kBlocks + b) * kRowBlock, row = s * R + r;
        const __m512i zero = w.zero ? _mm512_loadu_si512(w.zero + at) : _mm512_set1_epi32(w.centre);
        const __m512i sum = minus_zeros(_mm512_load_si512(sums + (r * B + b) * kRowBlock), zero, x.minus_sum[row], false);
        const __m512 both = _mm512_mul_ps(_mm512_loadu_ps(w.scale + at), _mm512_set1_ps(x.scale[row]));
        const __m512 so_far = _mm512_loadu_ps(from + r * ld_from + b * kRowBlock);
        _mm512_storeu_ps(y + r * ldy + b * kRowBlock, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, so_far));
      }
  }
}

// A tile narrower than either shape comes from few rows of x that are not decoded: none here.
void micro(const Strip& w, const Tile& x, const float* init, int64_t ld_init, float* y, int64_t ldy) noexcept {
  using Micro = void (*)(const Strip&, const Tile&, const float*, int64_t, float*, int64_t);
  static constexpr Micro kByBlocks[][2] = {{micro_blocks<1, false>, micro_blocks<1, true>}, {micro_blocks<2, false>, micro_blocks<2, true>}};
  static constexpr Micro kLong[] = {micro_long<1>, micro_long<2>};
  (x.rows == kLongTileRows ? kLong[w.blocks - 1] : kByBlocks[w.blocks - 1][w.zero != nullptr])(w, x, init, ld_init, y, ldy);
}

// Independent chains per row of x: together at least 8, to cover the latency.
template <int M>
constexpr int kChains = M == 1 ? 8 : M == 2 ? 4 : M <= 4 ? 2 : 1;

// N blocks of codes are unpacked in registers on their way from memory.
// long: one loop, unrolled three ways, whose parts share their registers
template <int B, int M, int N>
void decode_blocks(const Layout& l, const uint8_t* block, const Rows& x, float* y) {
  constexpr int kC = kChains<M>;
  constexpr bool kSixteenfold = B == 4 && kC > 1;  // chains of odd number sum codes of upper halves where they lie
  const Quads<B> quads(l.centre);
  const __m512i both_centres = _mm512_set1_epi8(static_cast<char>(17 * (l.centre & 15)));
  const auto* words = reinterpret_cast<const uint32_t*>(block);
  const int64_t next = l.block_bytes / 4;
  constexpr int kFar = kAhead / N, kNear = kSoon / N;
  // Behind the end of a block comes the N-th after it.
  const auto ahead = [&](const uint32_t* from, int64_t distance) __attribute__((always_inline)) {
    const char *to = reinterpret_cast<const char*>(from) + distance, *end = reinterpret_cast<const char*>(block) + l.block_bytes;
    return N > 1 && to >= end ? to + (N - 1) * l.block_bytes : to;
  };
  const bool is_short = x.segment <= kShortSegment;
  const int64_t units = x.segment / 32;
  const int8_t* q = x.q;
  __m512 total[N][M];
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
    qgemm::prefetch_gap(l, block + n * l.block_bytes, kFar);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) total[n][m] = _mm512_setzero_ps();
  }
  int64_t left = l.units;
  for (int64_t s = 0; s < x.segments; ++s, left -= units) {
    const int64_t g = s * x.segment / l.group < l.groups ? s * x.segment / l.group : l.groups - 1;
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) qgemm::prefetch_group(l, block + (N + n) * l.block_bytes, g);
    __m512i acc[N][M][kC];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int c = 0; c < kC; ++c)
          acc[n][m][c] = c > 0 ? _mm512_setzero_si512()
                               : minus_zeros(_mm512_setzero_si512(), zero_of(l, block + n * l.block_bytes, g), x.minus_sum[s * M + m], is_short);
    for (int64_t u = 0; u < (left < units ? left : units); ++u, words += B * kRowBlock, q += 32 * M) {
      const char *far = ahead(words, kFar), *near = ahead(words, kNear);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) {
          _mm_prefetch(far + n * l.block_bytes + b * 64, _MM_HINT_T1);
          _mm_prefetch(near + n * l.block_bytes + b * 64, _MM_HINT_T0);
        }
      auto one = [&]<int T>(std::integral_constant<int, T>) __attribute__((always_inline)) {
        __m512i w[N];
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) {
          if constexpr (B == 4) w[n] = nibbles<T, kSixteenfold>(words + n * next, both_centres);
          else w[n] = quads.template at<T>(words + n * next);
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          const __m512i xm = four(q + 4 * (T * M + m));
#pragma GCC unroll 2
          for (int n = 0; n < N; ++n) acc[n][m][T % kC] = _mm512_dpbusd_epi32(acc[n][m][T % kC], w[n], xm);
        }
      };
      [&]<int... T>(std::integer_sequence<int, T...>) __attribute__((always_inline)) { (one(std::integral_constant<int, T>()), ...); }
      (std::make_integer_sequence<int, 8>());
    }
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      const __m512 scale = scale_of(l, block + n * l.block_bytes, g);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int c = kC - 1; c > 0; --c) {
          if (c > 1) acc[n][m][c - 2] = _mm512_add_epi32(acc[n][m][c - 2], acc[n][m][c]);
          else acc[n][m][0] = _mm512_add_epi32(acc[n][m][0], kSixteenfold ? _mm512_srai_epi32(acc[n][m][1], 4) : acc[n][m][1]);
        }
        const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[s * M + m]));
        total[n][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[n][m][0]), both, total[n][m]);
      }
    }
  }
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) _mm512_storeu_ps(y + (m * kBlocks + n) * kRowBlock, total[n][m]);
}

// With few rows of x one block at a time is read as fast; with many, two share the loads of x and have sums enough to hide latencies.
template <int B, int M>
void decode_bits(const Layout& l, const uint8_t* block, int blocks, const Rows& x, float* y) {
  if (blocks == 2 && M > 4) return decode_blocks<B, M, M <= 4 ? 1 : 2>(l, block, x, y);
  for (int b = 0; b < blocks; ++b) decode_blocks<B, M, 1>(l, block + b * l.block_bytes, x, y + b * kRowBlock);
}

using Decode = void (*)(const Layout&, const uint8_t*, int, const Rows&, float*);
template <int B>
constexpr Decode kByM[] = {nullptr,           decode_bits<B, 1>, decode_bits<B, 2>, decode_bits<B, 3>, decode_bits<B, 4>,
                           decode_bits<B, 5>, decode_bits<B, 6>, decode_bits<B, 7>, decode_bits<B, 8>};

void decode(const Layout& l, const uint8_t* block, int blocks, const Rows& x, int m, float* y) noexcept {
  static constexpr const Decode* kByBits[] = {nullptr, nullptr, kByM<2>, kByM<3>, kByM<4>, kByM<5>, kByM<6>, nullptr, kByM<8>};
  kByBits[l.bits][m](l, block, blocks, x, y);
}

STATERA_INLINE __mmask16 first(int64_t count) { return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }

// Of bits: without a sign, floats are ordered as integers are, NaN above all.
float max_abs(const float* x, int64_t k) noexcept {
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < k; i += 16)
    most = _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(_mm512_maskz_loadu_ps(first(k - i), x + i))), most);
  return __builtin_bit_cast(float, _mm512_reduce_max_epi32(most));
}

// Quotients as the division instruction rounds them, six times as fast: the reciprocal's product, corrected twice by its exact remainder
// (Markstein 1990). What is so small that remainders would be denormal is divided.
STATERA_INLINE __m512 quotient(__m512 x, __m512 scale, __m512 reciprocal, bool divide) {
  if (divide) return _mm512_div_ps(x, scale);
  __m512 q = _mm512_mul_ps(x, reciprocal);
  q = _mm512_fmadd_ps(_mm512_fnmadd_ps(q, scale, x), reciprocal, q);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, scale, x), reciprocal, q);
}

int32_t quantize(const float* x, int64_t k, float scale, int8_t* q) noexcept {
  const bool divide = !(scale > 1e-25f && scale < 1e25f);
  const __m512 s = _mm512_set1_ps(scale), reciprocal = _mm512_set1_ps(1.0f / scale), high = _mm512_set1_ps(127.0f), low = _mm512_set1_ps(-128.0f);
  __m512i sum = _mm512_setzero_si512();
  auto codes = [&](__m512 v) __attribute__((always_inline)) {
    v = _mm512_min_ps(_mm512_max_ps(quotient(v, s, reciprocal, divide), low), high);
    const __m512i t = _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    sum = _mm512_add_epi32(sum, t);
    return t;
  };
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), _mm512_cvtepi32_epi8(codes(_mm512_loadu_ps(x + i))));
  if (i < k) _mm512_mask_cvtepi32_storeu_epi8(q + i, first(k - i), codes(_mm512_maskz_loadu_ps(first(k - i), x + i)));
  return _mm512_reduce_add_epi32(sum);
}

}  // namespace

const Table kAvx512 = {unpack, group, micro, decode, max_abs, quantize};

}  // namespace statera::kernels::i8gemm
