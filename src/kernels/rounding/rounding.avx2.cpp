// Vectors of 8. The loops are body.h; specification: rounding.scalar.cpp.
#include "kernels/rounding/rounding.h"

#include <immintrin.h>

namespace statera::kernels::rounding {
namespace {

constexpr int kVector = 32;

inline __attribute__((always_inline)) void store_codes(__m256 codes, int8_t* q) {
  const __m256i ints = _mm256_cvttps_epi32(codes);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(q), _mm_packs_epi16(words, words));
}

}  // namespace
}  // namespace statera::kernels::rounding

#include "kernels/rounding/body.h"

namespace statera::kernels::rounding {

const Table kAvx2 = {widen, range, codes};

}  // namespace statera::kernels::rounding
