// The specification, in the narrowest vectors that x86-64 has. The loops are body.h.
#include "kernels/rounding/rounding.h"

#include <emmintrin.h>

namespace statera::kernels::rounding {
namespace {

constexpr int kVector = 16;

inline __attribute__((always_inline)) void store_codes(__m128 codes, int8_t* q) {
  const __m128i words = _mm_packs_epi32(_mm_cvttps_epi32(codes), _mm_setzero_si128());
  _mm_storeu_si32(q, _mm_packs_epi16(words, words));
}

}  // namespace
}  // namespace statera::kernels::rounding

#include "kernels/rounding/body.h"

namespace statera::kernels::rounding {

const Table kScalar = {widen, range, codes};

}  // namespace statera::kernels::rounding
