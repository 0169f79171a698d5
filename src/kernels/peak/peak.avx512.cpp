// FMA, VNNI and, where the machine has it, BF16 dot products: sixteen chains each. Instructions are written out, so that nothing is folded,
// hoisted or spilled, and BF16 needs no compiler flag that would let it into other code. Specification: peak.scalar.cpp.
#include "kernels/peak/peak.h"

#include <immintrin.h>

namespace statera::kernels::peak {
namespace {

constexpr int kChains = 16;

template <class V, class Step>
void chains(V (&c)[kChains], int64_t rounds, Step step) {
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) step(c[j]);
  }
}

template <class T>
double sum_of(const T* lanes) {
  double sum = 0;
  for (int i = 0; i < kChains * 16; ++i) sum += static_cast<double>(lanes[i]);
  return sum;
}

// Stored chain by chain with constant indices: a loop over them would keep them all in memory.
double sum_of(const __m512 (&c)[kChains]) {
  alignas(64) float lanes[kChains * 16];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) _mm512_store_ps(lanes + 16 * j, c[j]);
  return sum_of(lanes);
}

double sum_of(const __m512i (&c)[kChains]) {
  alignas(64) int32_t lanes[kChains * 16];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) _mm512_store_si512(lanes + 16 * j, c[j]);
  return sum_of(lanes);
}

double fp32(int64_t rounds) noexcept {
  __m512 c[kChains];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) c[j] = _mm512_setzero_ps();
  const __m512 one = _mm512_set1_ps(1);
  chains(c, rounds, [&](__m512& x) { __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(x) : "v"(one)); });
  return sum_of(c);
}

double bf16(int64_t rounds) noexcept {
  __m512 c[kChains];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) c[j] = _mm512_setzero_ps();
  const __m512i one = _mm512_set1_epi16(0x3f80);
  chains(c, rounds, [&](__m512& x) { __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(x) : "v"(one)); });
  return sum_of(c);
}

double int8(int64_t rounds) noexcept {
  __m512i c[kChains];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) c[j] = _mm512_setzero_si512();
  const __m512i one = _mm512_set1_epi8(1);
  chains(c, rounds, [&](__m512i& x) { __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(x) : "v"(one)); });
  return sum_of(c);
}

uint64_t stream(const void* data, int64_t bytes) noexcept {
  const auto* p = static_cast<const char*>(data);
  __m512i x[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) x[j] = _mm512_setzero_si512();
  for (int64_t i = 0; i < bytes; i += 512) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      _mm_prefetch(p + i + 4096 + 64 * j, _MM_HINT_T0);
      x[j] = _mm512_xor_si512(x[j], _mm512_load_si512(p + i + 64 * j));
    }
  }
#pragma GCC unroll 8
  for (int j = 1; j < 8; ++j) x[0] = _mm512_xor_si512(x[0], x[j]);
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, x[0]);
  return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}

constexpr Peak kPeaks[] = {{Kind::fp32, "vfmadd231ps zmm", nullptr, kChains * 16, fp32},
                           {Kind::bf16, "vdpbf16ps zmm", "avx512_bf16", kChains * 32, bf16},
                           {Kind::int8, "vpdpbusd zmm", nullptr, kChains * 64, int8}};

}  // namespace

const Table kAvx512 = {stream, kPeaks, 3};

}  // namespace statera::kernels::peak
