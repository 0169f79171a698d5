// Decode: lanes along k, a few rows at once so that x is read once for them. Convert: 8x8 transposes in registers.
// Specification: hgemm.scalar.cpp.
#include "kernels/hgemm/hgemm.h"

#include <immintrin.h>

#include "kernels/hgemm/ahead.h"

namespace statera::kernels::hgemm {
namespace {

template <Type T>
inline __attribute__((always_inline)) __m256 load(const void* data, int64_t at) {
  if constexpr (T == Type::f32) return _mm256_loadu_ps(static_cast<const float*>(data) + at);
  if constexpr (T == Type::i8)
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const int8_t*>(data) + at))));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(data) + at));
  if constexpr (T == Type::f16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// The first `count` < 8 elements, zeros after; nothing beyond is read.
template <Type T>
inline __m256 load_tail(const void* data, int64_t at, int64_t count) {
  if constexpr (T == Type::f32) {
    float v[8] = {};
    for (int64_t i = 0; i < count; ++i) v[i] = static_cast<const float*>(data)[at + i];
    return _mm256_loadu_ps(v);
  } else if constexpr (T == Type::i8) {
    int8_t v[8] = {};
    for (int64_t i = 0; i < count; ++i) v[i] = static_cast<const int8_t*>(data)[at + i];
    return load<T>(v, 0);
  } else {
    uint16_t v[8] = {};
    for (int64_t i = 0; i < count; ++i) v[i] = static_cast<const uint16_t*>(data)[at + i];
    return load<T>(v, 0);
  }
}

inline float reduce(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// R rows of w from `row` against M rows of x, C chains each.
template <Type T, int M, int R, int C>
void dot_rows(const float* x, int64_t ldx, const Rows& w, int row, int64_t k, const Ahead<T, R>& ahead, float* y) {
  __m256 acc[M][R][C];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[m][r][c] = _mm256_setzero_ps();
  const int64_t base = row * w.ldw;
  int64_t i = 0;
  for (; i + 8 * C <= k; i += 8 * C) {
    ahead.ask(row, i, 8 * C * size_of(T));
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      __m256 wr[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) wr[r] = load<T>(w.data, base + r * w.ldw + i + 8 * c);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const __m256 xm = _mm256_loadu_ps(x + m * ldx + i + 8 * c);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[m][r][c] = _mm256_fmadd_ps(wr[r], xm, acc[m][r][c]);
      }
    }
  }
  for (; i < k; i += 8) {
    const int64_t left = k - i;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const int64_t at = base + r * w.ldw + i;
      const __m256 wr = left >= 8 ? load<T>(w.data, at) : load_tail<T>(w.data, at, left);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const __m256 xm = left >= 8 ? _mm256_loadu_ps(x + m * ldx + i) : load_tail<Type::f32>(x, m * ldx + i, left);
        acc[m][r][0] = _mm256_fmadd_ps(wr, xm, acc[m][r][0]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      __m256 sum = acc[m][r][0];
#pragma GCC unroll 4
      for (int c = 1; c < C; ++c) sum = _mm256_add_ps(sum, acc[m][r][c]);
      y[m * kRowBlock + row + r] = reduce(sum);
    }
}

template <Type T, int M>
void decode_rows(const float* x, int64_t ldx, const Rows& w, int64_t k, float* y) {
  constexpr int kR = M <= 2 ? 4 : M <= 4 ? 2 : 1, kC = M == 1 ? 2 : 1;
  int row = 0;
  const Ahead<T, kR> ahead(w, k);
  for (; row + kR <= w.rows; row += kR) dot_rows<T, M, kR, kC>(x, ldx, w, row, k, ahead, y);
  if (row == w.rows) return;
  const Ahead<T, 1> rest(w, k);
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

inline __attribute__((always_inline)) void transpose(__m256* r) {
  __m256 t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      u[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    r[c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x20);
    r[4 + c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x31);
  }
}

template <Type T>
void convert_type(const Rows& w, int64_t k_begin, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 8)
    for (int half = 0; half < kRowBlock; half += 8) {
      __m256 r[8];
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        const int64_t at = (half + j) * w.ldw + k_begin + i;
        r[j] = half + j >= w.rows ? _mm256_setzero_ps() : count - i >= 8 ? load<T>(w.data, at) : load_tail<T>(w.data, at, count - i);
      }
      transpose(r);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) _mm256_storeu_ps(out + (i + j) * kRowBlock + half, r[j]);
    }
}

void convert(const Rows& w, int64_t k_begin, int64_t count, float* out) noexcept {
  if (w.type == Type::f32) return convert_type<Type::f32>(w, k_begin, count, out);
  if (w.type == Type::f16) return convert_type<Type::f16>(w, k_begin, count, out);
  if (w.type == Type::i8) return convert_type<Type::i8>(w, k_begin, count, out);
  convert_type<Type::bf16>(w, k_begin, count, out);
}

}  // namespace

const Table kAvx2 = {decode, convert, nullptr};

}  // namespace statera::kernels::hgemm
