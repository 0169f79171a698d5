// A block's 16 rows are the lanes of two registers: a field is two shifts (sign extension), a product one FMA with a
// broadcast x, and no sum crosses lanes. Specification: qgemm.scalar.cpp.
#include "kernels/qgemm/qgemm.h"

#include <immintrin.h>

#include <utility>

namespace statera::kernels::qgemm {
namespace {

constexpr int kAhead = 8192;  // bytes of codes to prefetch before use: hardware prefetchers alone reach half of the memory speed
#define STATERA_INLINE inline __attribute__((always_inline))

STATERA_INLINE __m256i load8(const uint32_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

// Field I (of 32) of 8 rows of the unit at `words`.
template <int B, int I>
STATERA_INLINE __m256 field(const uint32_t* words) {
  constexpr int kBit = I * B % 32;
  const uint32_t* at = words + I * B / 32 * kRowBlock;
  __m256i v = load8(at);
  if constexpr (kBit + B > 32)  // ends in the next word: low bits from this one
    v = _mm256_or_si256(_mm256_slli_epi32(_mm256_srli_epi32(v, kBit), 32 - B), _mm256_slli_epi32(load8(at + kRowBlock), 64 - kBit - B));
  else if constexpr (kBit + B < 32)
    v = _mm256_slli_epi32(v, 32 - B - kBit);
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(v, 32 - B));
}

// 8 rows from `row` of group g.
STATERA_INLINE __m256 scale_of(const Layout& l, const uint8_t* block, int64_t g, int row) {
  const uint8_t* scales = block + l.scale_offset;
  const int64_t slot = g * kRowBlock + row;
  if (l.scale == ScaleType::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(scales) + slot);
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + slot * 2));
  if (l.scale == ScaleType::f16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// zero - centre: what to subtract from a field.
STATERA_INLINE __m256 zero_of(const Layout& l, const uint8_t* block, int64_t g, int row) {
  const __m128i zeros = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + l.zero_offset + g * kRowBlock + row));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(zeros), _mm256_set1_epi32(l.centre)));
}

template <int B>
STATERA_INLINE void unit_values(const uint32_t* words, __m256 zero, __m256 scale, float* out) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (_mm256_storeu_ps(out + I * kRowBlock, _mm256_mul_ps(_mm256_sub_ps(field<B, I>(words), zero), scale)), ...);
  }
  (std::make_integer_sequence<int, 32>());
}

template <int B>
void dequantize_bits(const Layout& l, const uint8_t* block, int64_t k_begin, int64_t count, float* out) {
  const __m256 none = _mm256_setzero_ps();
  for (int64_t k = k_begin; k < k_begin + count; k += 32, out += 32 * kRowBlock) {
    for (int row = 0; row < kRowBlock; row += 8) {
      const auto* words = reinterpret_cast<const uint32_t*>(block) + k / 32 * B * kRowBlock + row;
      int64_t g = k / l.group;
      if ((g + 1) * l.group >= k + 32 || g == l.groups - 1) {
        unit_values<B>(words, l.zeros ? zero_of(l, block, g, row) : none, scale_of(l, block, g, row), out + row);
        continue;
      }
      unit_values<B>(words, none, _mm256_set1_ps(1.0f), out + row);
      for (int i = 0; i < 32;) {  // groups end inside the unit
        const __m256 zero = l.zeros ? zero_of(l, block, g, row) : none, scale = scale_of(l, block, g, row);
        const bool last = g == l.groups - 1;
        for (; i < 32 && (last || k + i < (g + 1) * l.group); ++i) {
          float* at = out + i * kRowBlock + row;
          _mm256_storeu_ps(at, _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(at), zero), scale));
        }
        if (!last) ++g;
      }
    }
  }
}

// At most 8 sums live in registers: both halves of the block for M <= 4 (with several chains for M <= 2), one half above.
template <int M>
constexpr int kHalves = M <= 4 ? 2 : 1;
template <int M>
constexpr int kChains = M == 1   ? 4
                        : M == 2 ? 2
                                 : 1;

// Groups of whole units, rows [row, row + 8 * kHalves): integers are summed against x, and meet scale and zero once a group.
template <int B, int M>
void decode_groups(const Layout& l, const uint8_t* block, const Stretch& s, float* y, int row) {
  constexpr int kC = kChains<M>, kH = kHalves<M>;
  const auto* words = reinterpret_cast<const uint32_t*>(block) + s.begin / 32 * B * kRowBlock + row;
  const float* x = s.x;
  const float* sums = s.sums;
  __m256 total[M][kH];
  for (int m = 0; m < M; ++m)
    for (int h = 0; h < kH; ++h) total[m][h] = _mm256_setzero_ps();
  int64_t g = s.begin / l.group;
  for (int64_t k = s.begin; k < s.end; ++g) {
    __m256 acc[M][kH][kC];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int h = 0; h < kH; ++h)
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) acc[m][h][c] = _mm256_setzero_ps();
    const int64_t stop = (g + 1) * l.group < s.end ? (g + 1) * l.group : s.end;
    for (; k < stop; k += 32, words += B * kRowBlock, x += 32 * M) {
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) _mm_prefetch(reinterpret_cast<const char*>(words + b * kRowBlock) + kAhead, _MM_HINT_T0);
      auto one = [&]<int J>(std::integral_constant<int, J>) __attribute__((always_inline)) {
        __m256 w[kH];
#pragma GCC unroll 2
        for (int h = 0; h < kH; ++h) w[h] = field<B, J>(words + 8 * h);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          const __m256 xm = _mm256_broadcast_ss(x + J * M + m);
#pragma GCC unroll 2
          for (int h = 0; h < kH; ++h) acc[m][h][J % kC] = _mm256_fmadd_ps(w[h], xm, acc[m][h][J % kC]);
        }
      };
      [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) { (one(std::integral_constant<int, I>()), ...); }
      (std::make_integer_sequence<int, 32>());
    }
#pragma GCC unroll 2
    for (int h = 0; h < kH; ++h) {
      const __m256 scale = scale_of(l, block, g, row + 8 * h);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        __m256 sum = acc[m][h][0];
#pragma GCC unroll 4
        for (int c = 1; c < kC; ++c) sum = _mm256_add_ps(sum, acc[m][h][c]);
        if (sums) sum = _mm256_fnmadd_ps(zero_of(l, block, g, row + 8 * h), _mm256_set1_ps(sums[m]), sum);
        total[m][h] = _mm256_fmadd_ps(sum, scale, total[m][h]);
      }
    }
    if (sums) sums += M;
  }
  for (int m = 0; m < M; ++m)
    for (int h = 0; h < kH; ++h) _mm256_storeu_ps(y + m * kRowBlock + row + 8 * h, total[m][h]);
}

// Any groups: a unit is dequantized into the first-level cache, then multiplied.
template <int B, int M>
void decode_units(const Layout& l, const uint8_t* block, const Stretch& s, float* y) {
  alignas(32) float w[32 * kRowBlock];
  for (int i = 0; i < M * kRowBlock; ++i) y[i] = 0;
  const float* x = s.x;
  for (int64_t k = s.begin; k < s.end; k += 32, x += 32 * M) {
    dequantize_bits<B>(l, block, k, 32, w);
    for (int row = 0; row < kRowBlock; row += 8) {
      __m256 acc[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[m] = _mm256_loadu_ps(y + m * kRowBlock + row);
      for (int i = 0; i < 32; ++i) {
        const __m256 wi = _mm256_loadu_ps(w + i * kRowBlock + row);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) acc[m] = _mm256_fmadd_ps(wi, _mm256_broadcast_ss(x + i * M + m), acc[m]);
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) _mm256_storeu_ps(y + m * kRowBlock + row, acc[m]);
    }
  }
}

template <int B, int M>
void decode_bits(const Layout& l, const uint8_t* block, const Stretch& s, float* y) {
  if ((l.group % 32 == 0 || l.groups == 1) && (s.sums || !l.zeros)) {
    for (int row = 0; row < kRowBlock; row += 8 * kHalves<M>) decode_groups<B, M>(l, block, s, y, row);
    return;
  }
  decode_units<B, M>(l, block, s, y);
}

using Decode = void (*)(const Layout&, const uint8_t*, const Stretch&, float*);
template <int B>
constexpr Decode kByRows[] = {nullptr,           decode_bits<B, 1>, decode_bits<B, 2>, decode_bits<B, 3>, decode_bits<B, 4>,
                              decode_bits<B, 5>, decode_bits<B, 6>, decode_bits<B, 7>, decode_bits<B, 8>};

void decode(const Layout& l, const uint8_t* block, const Stretch& s, float* y) noexcept {
  static constexpr const Decode* kByBits[] = {nullptr,    nullptr,    kByRows<2>, kByRows<3>, kByRows<4>,
                                              kByRows<5>, kByRows<6>, nullptr,    kByRows<8>};
  kByBits[l.bits][s.m](l, block, s, y);
}

void dequantize(const Layout& l, const uint8_t* block, int64_t k_begin, int64_t count, float* out) noexcept {
  using Dequantize = void (*)(const Layout&, const uint8_t*, int64_t, int64_t, float*);
  static constexpr Dequantize kByBits[] = {
      nullptr, nullptr,           dequantize_bits<2>, dequantize_bits<3>, dequantize_bits<4>, dequantize_bits<5>, dequantize_bits<6>,
      nullptr, dequantize_bits<8>};
  kByBits[l.bits](l, block, k_begin, count, out);
}

}  // namespace

const Table kAvx2 = {decode, dequantize};

}  // namespace statera::kernels::qgemm
