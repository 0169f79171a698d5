// 16 rows of a block are the 16 lanes of a register: a field is one shift (and a permute as a table of its values up to 5
// bits), a product one FMA with a broadcast x, and no sum crosses lanes. Specification: qgemm.scalar.cpp.
#include "kernels/qgemm/qgemm.h"

#include <immintrin.h>

#include <utility>

namespace statera::kernels::qgemm {
namespace {

constexpr int kAhead = 4096;  // bytes of codes to prefetch before use: hardware prefetchers alone reach half of the memory speed
#define STATERA_INLINE inline __attribute__((always_inline))

// The low B bits of each lane as a signed float; what stands above them does not matter.
template <int B>
struct Fields;
template <>
struct Fields<2> {
  __m512 table = _mm512_setr_ps(0, 1, -2, -1, 0, 1, -2, -1, 0, 1, -2, -1, 0, 1, -2, -1);
  STATERA_INLINE __m512 value(__m512i v) const { return _mm512_permutexvar_ps(v, table); }
};
template <>
struct Fields<3> {
  __m512 table = _mm512_setr_ps(0, 1, 2, 3, -4, -3, -2, -1, 0, 1, 2, 3, -4, -3, -2, -1);
  STATERA_INLINE __m512 value(__m512i v) const { return _mm512_permutexvar_ps(v, table); }
};
template <>
struct Fields<4> {
  __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  STATERA_INLINE __m512 value(__m512i v) const { return _mm512_permutexvar_ps(v, table); }
};
template <>
struct Fields<5> {
  __m512 low = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512 high = _mm512_setr_ps(-16, -15, -14, -13, -12, -11, -10, -9, -8, -7, -6, -5, -4, -3, -2, -1);
  STATERA_INLINE __m512 value(__m512i v) const { return _mm512_permutex2var_ps(low, v, high); }
};
template <>
struct Fields<6> {
  STATERA_INLINE __m512 value(__m512i v) const { return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 26), 26)); }
};

// Field I (of 32) of the unit at `words`.
template <int B, int I>
STATERA_INLINE __m512 field(const Fields<B>& fields, const uint32_t* words) {
  constexpr int kBit = I * B % 32;
  const uint32_t* at = words + I * B / 32 * kRowBlock;
  __m512i v = _mm512_loadu_si512(at);
  if constexpr (kBit != 0) v = _mm512_srli_epi32(v, kBit);
  if constexpr (kBit + B > 32) v = _mm512_or_si512(v, _mm512_slli_epi32(_mm512_loadu_si512(at + kRowBlock), 32 - kBit));
  return fields.value(v);
}
template <>
struct Fields<8> {};
template <int B, int I>
requires(B == 8) STATERA_INLINE __m512 field(const Fields<8>&, const uint32_t* words) {
  __m512i v = _mm512_loadu_si512(words + I / 4 * kRowBlock);
  if constexpr (I % 4 != 3) v = _mm512_slli_epi32(v, 24 - I % 4 * 8);
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 24));
}

STATERA_INLINE __m512 scale_of(const Layout& l, const uint8_t* block, int64_t g) {
  const uint8_t* scales = block + l.scale_offset;
  if (l.scale == ScaleType::f32) return _mm512_loadu_ps(scales + g * 64);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + g * 32));
  if (l.scale == ScaleType::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// zero - centre: what to subtract from a field.
STATERA_INLINE __m512 zero_of(const Layout& l, const uint8_t* block, int64_t g) {
  const __m128i zeros = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + l.zero_offset + g * kRowBlock));
  return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(zeros), _mm512_set1_epi32(l.centre)));
}

template <int B>
STATERA_INLINE void unit_values(const Fields<B>& fields, const uint32_t* words, __m512 zero, __m512 scale, float* out) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (_mm512_storeu_ps(out + I * kRowBlock, _mm512_mul_ps(_mm512_sub_ps(field<B, I>(fields, words), zero), scale)), ...);
  }
  (std::make_integer_sequence<int, 32>());
}

template <int B>
void dequantize_bits(const Layout& l, const uint8_t* block, int64_t k_begin, int64_t count, float* out) {
  const Fields<B> fields;
  for (int64_t k = k_begin; k < k_begin + count; k += 32, out += 32 * kRowBlock) {
    const auto* words = reinterpret_cast<const uint32_t*>(block) + k / 32 * B * kRowBlock;
    const __m512 none = _mm512_setzero_ps();
    int64_t g = k / l.group;
    if ((g + 1) * l.group >= k + 32 || g == l.groups - 1) {
      unit_values<B>(fields, words, l.zeros ? zero_of(l, block, g) : none, scale_of(l, block, g), out);
      continue;
    }
    unit_values<B>(fields, words, none, _mm512_set1_ps(1.0f), out);
    for (int i = 0; i < 32;) {  // groups end inside the unit
      const __m512 zero = l.zeros ? zero_of(l, block, g) : none, scale = scale_of(l, block, g);
      const bool last = g == l.groups - 1;
      for (; i < 32 && (last || k + i < (g + 1) * l.group); ++i)
        _mm512_storeu_ps(out + i * kRowBlock, _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(out + i * kRowBlock), zero), scale));
      if (!last) ++g;
    }
  }
}

// Independent FMA chains per row of x: together at least 8, to cover the latency.
template <int M>
constexpr int kChains = M == 1   ? 8
                        : M == 2 ? 4
                        : M <= 4 ? 2
                                 : 1;

// Groups of whole units: integers are summed against x, and meet scale and zero once a group.
template <int B, int M>
void decode_groups(const Layout& l, const uint8_t* block, const Stretch& s, float* y) {
  constexpr int kC = kChains<M>;
  const Fields<B> fields;
  const auto* words = reinterpret_cast<const uint32_t*>(block) + s.begin / 32 * B * kRowBlock;
  const float* x = s.x;
  const float* sums = s.sums;
  __m512 total[M];
  for (int m = 0; m < M; ++m) total[m] = _mm512_setzero_ps();
  int64_t g = s.begin / l.group;
  for (int64_t k = s.begin; k < s.end; ++g) {
    prefetch_group(l, block + l.block_bytes, g);
    __m512 acc[M][kC];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int c = 0; c < kC; ++c) acc[m][c] = _mm512_setzero_ps();
    const int64_t stop = (g + 1) * l.group < s.end ? (g + 1) * l.group : s.end;
    for (; k < stop; k += 32, words += B * kRowBlock, x += 32 * M) {
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) _mm_prefetch(reinterpret_cast<const char*>(words + b * kRowBlock) + kAhead, _MM_HINT_T1);
      auto one = [&]<int J>(std::integral_constant<int, J>) __attribute__((always_inline)) {
        const __m512 w = field<B, J>(fields, words);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) acc[m][J % kC] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[J * M + m]), acc[m][J % kC]);
      };
      [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) { (one(std::integral_constant<int, I>()), ...); }
      (std::make_integer_sequence<int, 32>());
    }
    const __m512 scale = scale_of(l, block, g);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      __m512 sum = acc[m][0];
      if constexpr (kC == 8)
        sum = _mm512_add_ps(_mm512_add_ps(_mm512_add_ps(acc[m][0], acc[m][1]), _mm512_add_ps(acc[m][2], acc[m][3])),
                            _mm512_add_ps(_mm512_add_ps(acc[m][4], acc[m][5]), _mm512_add_ps(acc[m][6], acc[m][7])));
      if constexpr (kC == 4) sum = _mm512_add_ps(_mm512_add_ps(acc[m][0], acc[m][1]), _mm512_add_ps(acc[m][2], acc[m][3]));
      if constexpr (kC == 2) sum = _mm512_add_ps(acc[m][0], acc[m][1]);
      if (sums) sum = _mm512_fnmadd_ps(zero_of(l, block, g), _mm512_set1_ps(sums[m]), sum);
      total[m] = _mm512_fmadd_ps(sum, scale, total[m]);
    }
    if (sums) sums += M;
  }
  for (int m = 0; m < M; ++m) _mm512_storeu_ps(y + m * kRowBlock, total[m]);
}

// Any groups: a unit is dequantized into the first-level cache, then multiplied.
template <int B, int M>
void decode_units(const Layout& l, const uint8_t* block, const Stretch& s, float* y) {
  constexpr int kC = kChains<M>;
  alignas(64) float w[32 * kRowBlock];
  __m512 acc[M][kC];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int c = 0; c < kC; ++c) acc[m][c] = _mm512_setzero_ps();
  const float* x = s.x;
  for (int64_t k = s.begin; k < s.end; k += 32) {
    dequantize_bits<B>(l, block, k, 32, w);
    for (int i = 0; i < 32; i += kC, x += kC * M)
#pragma GCC unroll 8
      for (int c = 0; c < kC; ++c) {
        const __m512 wc = _mm512_loadu_ps(w + (i + c) * kRowBlock);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) acc[m][c] = _mm512_fmadd_ps(wc, _mm512_set1_ps(x[c * M + m]), acc[m][c]);
      }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int c = 1; c < kC; ++c) acc[m][0] = _mm512_add_ps(acc[m][0], acc[m][c]);
    _mm512_storeu_ps(y + m * kRowBlock, acc[m][0]);
  }
}

template <int B, int M>
void decode_bits(const Layout& l, const uint8_t* block, const Stretch& s, float* y) {
  if ((l.group % 32 == 0 || l.groups == 1) && (s.sums || !l.zeros)) return decode_groups<B, M>(l, block, s, y);
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

const Table kAvx512 = {decode, dequantize};

}  // namespace statera::kernels::qgemm
