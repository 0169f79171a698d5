// The portable forms: the specification of read and of what run returns. The compiler may widen the loop over chains to SSE2, which every
// x86-64 machine has.
#include "kernels/peak/peak.h"

namespace statera::kernels::peak {
namespace {

constexpr int kChains = 16;

double fp32(int64_t rounds) noexcept {
  float c[kChains] = {}, one = 1;
  for (int64_t i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+x"(one));  // or the product would be computed once
    for (float& x : c) x += one * one;
  }
  double sum = 0;
  for (float x : c) sum += static_cast<double>(x);
  return sum;
}

double int8(int64_t rounds) noexcept {
  int32_t c[kChains] = {};
  int8_t one = 1;
  for (int64_t i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+r"(one));
    for (int32_t& x : c) x += int32_t{one} * one;
  }
  double sum = 0;
  for (int32_t x : c) sum += x;
  return sum;
}

uint64_t stream(const void* data, int64_t bytes) noexcept {
  const auto* p = static_cast<const uint64_t*>(data);
  uint64_t x[8] = {};
  for (int64_t i = 0; i < bytes / 8; i += 8)
    for (int j = 0; j < 8; ++j) x[j] ^= p[i + j];
  return x[0] ^ x[1] ^ x[2] ^ x[3] ^ x[4] ^ x[5] ^ x[6] ^ x[7];
}

constexpr Peak kPeaks[] = {{Kind::fp32, "multiply and add", nullptr, kChains, fp32}, {Kind::int8, "multiply and add", nullptr, kChains, int8}};

}  // namespace

const Table kScalar = {stream, kPeaks, 2};

}  // namespace statera::kernels::peak
