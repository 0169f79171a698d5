// vdpbf16ps adds two products a lane: 12 rows of A by 32 columns of C in 24 registers. Specification: bgemm.scalar.cpp.
#include "kernels/bgemm/bgemm.h"

#include <immintrin.h>

namespace statera::kernels::bgemm {
namespace {

constexpr int kMaxRows = 12;

__mmask16 first(int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1); }

// Of the first 16 words of the pairs of a row, as they lie: cvtne2ps puts its second operand into the lower half.
__m512i pairs(const float* x, int64_t k) {
  const __m512 low = _mm512_maskz_loadu_ps(first(k), x), high = k > 16 ? _mm512_maskz_loadu_ps(first(k - 16), x + 16) : _mm512_setzero_ps();
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

void row(const float* x, int64_t k, uint32_t* out) noexcept {
  int64_t i = 0;
  for (; i + 32 <= k; i += 32) _mm512_storeu_si512(out + i / 2, pairs(x + i, 32));
  if (i < k) _mm512_mask_storeu_epi32(out + i / 2, first((k - i + 1) / 2), pairs(x + i, k - i));
}

void columns(const float* even, const float* odd, int64_t count, uint32_t* out) noexcept {
  alignas(64) static constexpr uint16_t kInterleaved[] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i order = _mm512_load_si512(kInterleaved);
  for (int64_t j = 0; j < count; j += 16) {
    const __mmask16 there = first(count - j);
    const __m512 low = _mm512_maskz_loadu_ps(there, even + j), high = odd ? _mm512_maskz_loadu_ps(there, odd + j) : _mm512_setzero_ps();
    _mm512_mask_storeu_epi32(out + j, there, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low)));
  }
}

void turn(const uint32_t* in, int64_t ldi, uint32_t* out, int64_t ldo) noexcept {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + i * ldi);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4 g + c] holds, in its quarter q, column 4 q + c of rows 4 g to 4 g + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i even01 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), odd01 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    const __m512i even23 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88), odd23 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    _mm512_storeu_si512(out + c * ldo, _mm512_shuffle_i32x4(even01, even23, 0x88));
    _mm512_storeu_si512(out + (4 + c) * ldo, _mm512_shuffle_i32x4(odd01, odd23, 0x88));
    _mm512_storeu_si512(out + (8 + c) * ldo, _mm512_shuffle_i32x4(even01, even23, 0xdd));
    _mm512_storeu_si512(out + (12 + c) * ldo, _mm512_shuffle_i32x4(odd01, odd23, 0xdd));
  }
}

template <int R>
void rows_of(const uint32_t* a, const uint32_t* b, int64_t count, bool add, float* y, int64_t ldy) {
  __m512 acc[R][2];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; ++i) {
    const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b + i * kColumns), b1 = (__m512bh)_mm512_loadu_si512(b + i * kColumns + 16);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      __m512i both = _mm512_set1_epi32(static_cast<int>(a[r * (kDepth / 2) + i]));
#ifdef __clang__
      asm("" : "+v"(both));  // clang 16 crashes on folding the load into the product
#endif
      const __m512bh one = (__m512bh)both;
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], one, b0);
      acc[r][1] = _mm512_dpbf16_ps(acc[r][1], one, b1);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      float* to = y + r * ldy + 16 * h;
      _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), acc[r][h]) : acc[r][h]);
    }
}

using Kernel = void (*)(const uint32_t*, const uint32_t*, int64_t, bool, float*, int64_t);
constexpr Kernel kByRows[] = {nullptr,    rows_of<1>, rows_of<2>, rows_of<3>,  rows_of<4>,  rows_of<5>, rows_of<6>,
                              rows_of<7>, rows_of<8>, rows_of<9>, rows_of<10>, rows_of<11>, rows_of<12>};
static_assert(sizeof kByRows / sizeof *kByRows == kMaxRows + 1);

void micro(const uint32_t* a, int rows, const uint32_t* b, int64_t count, bool add, float* y, int64_t ldy) noexcept {
  kByRows[rows](a, b, count, add, y, ldy);
}

}  // namespace

const Table kAvx512Bf16 = {row, columns, turn, {kMaxRows, micro, nullptr, nullptr}};

}  // namespace statera::kernels::bgemm
