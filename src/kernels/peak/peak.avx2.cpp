// FMA and bytes by maddubs, or by AVX-VNNI where the machine has it. Instructions are written out, so that nothing is folded, hoisted or
// spilled: twelve chains and their operands fill the sixteen registers. Specification: peak.scalar.cpp.
#include "kernels/peak/peak.h"

#include <immintrin.h>

namespace statera::kernels::peak {
namespace {

constexpr int kChains = 12;

template <class V, class Step>
void chains(V (&c)[kChains], int64_t rounds, Step step) {
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) step(c[j]);
  }
}

template <class T>
double sum_of(const T* lanes) {
  double sum = 0;
  for (int i = 0; i < kChains * 8; ++i) sum += static_cast<double>(lanes[i]);
  return sum;
}

// Stored chain by chain with constant indices: a loop over them would keep them all in memory.
double sum_of(const __m256 (&c)[kChains]) {
  alignas(32) float lanes[kChains * 8];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) _mm256_store_ps(lanes + 8 * j, c[j]);
  return sum_of(lanes);
}

double sum_of(const __m256i (&c)[kChains]) {
  alignas(32) int32_t lanes[kChains * 8];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) _mm256_store_si256(reinterpret_cast<__m256i*>(lanes + 8 * j), c[j]);
  return sum_of(lanes);
}

double fp32(int64_t rounds) noexcept {
  __m256 c[kChains];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) c[j] = _mm256_setzero_ps();
  const __m256 one = _mm256_set1_ps(1);
  chains(c, rounds, [&](__m256& x) { __asm__ volatile("vfmadd231ps %1, %1, %0" : "+x"(x) : "x"(one)); });
  return sum_of(c);
}

double maddubs(int64_t rounds) noexcept {
  __m256i c[kChains];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) c[j] = _mm256_setzero_si256();
  const __m256i one = _mm256_set1_epi8(1), pairs = _mm256_set1_epi16(1);
  chains(c, rounds, [&](__m256i& x) {
    __m256i t;
    __asm__ volatile("vpmaddubsw %2, %2, %1\n\tvpmaddwd %3, %1, %1\n\tvpaddd %1, %0, %0" : "+x"(x), "=&x"(t) : "x"(one), "x"(pairs));
  });
  return sum_of(c);
}

double vnni(int64_t rounds) noexcept {
  __m256i c[kChains];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) c[j] = _mm256_setzero_si256();
  const __m256i one = _mm256_set1_epi8(1);
  chains(c, rounds, [&](__m256i& x) { __asm__ volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(x) : "x"(one)); });
  return sum_of(c);
}

uint64_t stream(const void* data, int64_t bytes) noexcept {
  const auto* p = static_cast<const char*>(data);
  __m256i x[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) x[j] = _mm256_setzero_si256();
  for (int64_t i = 0; i < bytes; i += 256) {
    _mm_prefetch(p + i + 4096, _MM_HINT_T0);
    _mm_prefetch(p + i + 4096 + 64, _MM_HINT_T0);
    _mm_prefetch(p + i + 4096 + 128, _MM_HINT_T0);
    _mm_prefetch(p + i + 4096 + 192, _MM_HINT_T0);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) x[j] = _mm256_xor_si256(x[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(p + i + 32 * j)));
  }
#pragma GCC unroll 8
  for (int j = 1; j < 8; ++j) x[0] = _mm256_xor_si256(x[0], x[j]);
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), x[0]);
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}

constexpr Peak kPeaks[] = {{Kind::fp32, "vfmadd231ps ymm", nullptr, kChains * 8, fp32},
                           {Kind::int8, "vpdpbusd ymm", "avx_vnni", kChains * 32, vnni},
                           {Kind::int8, "vpmaddubsw ymm", nullptr, kChains * 32, maddubs}};

}  // namespace

const Table kAvx2 = {stream, kPeaks, 3};

}  // namespace statera::kernels::peak
