// Decode: lanes along k, a few rows at once so that x is read once for them. Convert: 16x16 transposes in registers.
// Specification: hgemm.scalar.cpp.
#include "kernels/hgemm/hgemm.h"

#include <immintrin.h>

#include "kernels/hgemm/ahead.h"

namespace statera::kernels::hgemm {
namespace {

inline __attribute__((always_inline)) __mmask16 first(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// 16 elements from `at`, the first of which are selected; the others are not read.
template <Type T>
inline __attribute__((always_inline)) __m512 load(const void* data, int64_t at, __mmask16 mask) {
  if constexpr (T == Type::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(data) + at);
  if constexpr (T == Type::i8) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, static_cast<const int8_t*>(data) + at)));
  const __m256i half = _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(data) + at);
  if constexpr (T == Type::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
template <Type T>
inline __attribute__((always_inline)) __m512 load(const void* data, int64_t at) {
  if constexpr (T == Type::f32) return _mm512_loadu_ps(static_cast<const float*>(data) + at);
  if constexpr (T == Type::i8)
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const int8_t*>(data) + at))));
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(data) + at));
  if constexpr (T == Type::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// The sums of the lanes of four.
inline __attribute__((always_inline)) __m128 sums_of(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512d ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
  const __m512d cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// And from there into the first, before use.
template <Type T, int R>
struct Asks {
  Ahead<T, R> far;
  Ahead<T, R, 4096, 1> near;
  Asks(const Rows& w, int64_t columns) : far(w, columns), near(w, columns) {}
};

// R rows of w from `row` against M rows of x, C chains each.
template <Type T, int M, int R, int C>
void dot_rows(const float* x, int64_t ldx, const Rows& w, int row, int64_t k, const Asks<T, R>& ahead, float* y) {
  __m512 acc[M][R][C];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[m][r][c] = _mm512_setzero_ps();
  const int64_t base = row * w.ldw;
  int64_t i = 0;
  for (; i + 16 * C <= k; i += 16 * C) {
    ahead.far.ask(row, i, 16 * C * size_of(T));
    ahead.near.ask(row, i, 16 * C * size_of(T));
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      __m512 wr[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) wr[r] = load<T>(w.data, base + r * w.ldw + i + 16 * c);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const __m512 xm = _mm512_loadu_ps(x + m * ldx + i + 16 * c);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[m][r][c] = _mm512_fmadd_ps(wr[r], xm, acc[m][r][c]);
      }
    }
  }
  for (; i < k; i += 16) {
    const __mmask16 mask = first(k - i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m512 wr = load<T>(w.data, base + r * w.ldw + i, mask);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[m][r][0] = _mm512_fmadd_ps(wr, _mm512_maskz_loadu_ps(mask, x + m * ldx + i), acc[m][r][0]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    float* to = y + m * kRowBlock + row;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 1; c < C; ++c) acc[m][r][0] = _mm512_add_ps(acc[m][r][0], acc[m][r][c]);
      if constexpr (R != 4) to[r] = _mm512_reduce_add_ps(acc[m][r][0]);
    }
    if constexpr (R == 4) _mm_storeu_ps(to, sums_of(acc[m][0][0], acc[m][1][0], acc[m][2][0], acc[m][3][0]));
  }
}

template <Type T, int M>
void decode_rows(const float* x, int64_t ldx, const Rows& w, int64_t k, float* y) {
  constexpr int kR = M > 1 && M <= 6 ? 4 : 2, kC = M == 1 ? 2 : 1;
  int row = 0;
  const Asks<T, kR> ahead(w, k);
  for (; row + kR <= w.rows; row += kR) dot_rows<T, M, kR, kC>(x, ldx, w, row, k, ahead, y);
  if (row == w.rows) return;
  const Asks<T, 1> rest(w, k);
  for (; row < w.rows; ++row) dot_rows<T, M, 1, kC>(x, ldx, w, row, k, rest, y);
}

using Decode = void (*)(const float*, int64_t, const Rows&, int64_t, float*);
template <Type T>
constexpr Decode kByRows[] = {nullptr,           decode_rows<T, 1>, decode_rows<T, 2>, decode_rows<T, 3>, decode_rows<T, 4>,
                              decode_rows<T, 5>, decode_rows<T, 6>, decode_rows<T, 7>, decode_rows<T, 8>};

void decode(const float* x, int64_t ldx, int m, const Rows& w, int64_t k, float* y) noexcept {
  const Decode* by_rows = w.type == Type::f32   ? kByRows<Type::f32>
                          : w.type == Type::f16 ? kByRows<Type::f16>
                          : w.type == Type::i8  ? kByRows<Type::i8>
                                                : kByRows<Type::bf16>;
  by_rows[m](x, ldx, w, k, y);
}

// Transposes r[16][16] in place: pairs of 32-bit elements, then of 64, then of 128-bit quarters twice.
inline __attribute__((always_inline)) void transpose(__m512* r) {
  __m512 t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
    // now quarter q of r[4*b + c] holds column 4*q + c of rows 4*b..4*b+3
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd), e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_f32x4(a, b, 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(a, b, 0xdd);
    t[4 + c] = _mm512_shuffle_f32x4(d, e, 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(d, e, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

template <Type T>
void convert_type(const Rows& w, int64_t k_begin, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first(count - i);
    __m512 r[16];
#pragma GCC unroll 16
    for (int row = 0; row < 16; ++row) {
      const bool there = row < w.rows;
      r[row] = load<T>(w.data, there ? row * w.ldw + k_begin + i : 0, there ? mask : 0);
    }
    transpose(r);
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) _mm512_storeu_ps(out + (i + j) * kRowBlock, r[j]);
  }
}

void convert(const Rows& w, int64_t k_begin, int64_t count, float* out) noexcept {
  if (w.type == Type::f32) return convert_type<Type::f32>(w, k_begin, count, out);
  if (w.type == Type::f16) return convert_type<Type::f16>(w, k_begin, count, out);
  if (w.type == Type::i8) return convert_type<Type::i8>(w, k_begin, count, out);
  convert_type<Type::bf16>(w, k_begin, count, out);
}

void pairs(const Rows& w, int64_t k_begin, int64_t count, uint32_t* out) noexcept {
  const __mmask32 mask = count >= 32 ? 0xffffffffu : (1u << count) - 1;
  __m512 r[16];
#pragma GCC unroll 16
  for (int row = 0; row < 16; ++row) {
    const bool there = row < w.rows;
    r[row] = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(there ? mask : 0, static_cast<const uint16_t*>(w.data) + (there ? row * w.ldw + k_begin : 0)));
  }
  transpose(r);
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) _mm512_storeu_ps(reinterpret_cast<float*>(out) + j * kRowBlock, r[j]);
}

}  // namespace

const Table kAvx512 = {decode, convert, pairs};

}  // namespace statera::kernels::hgemm
