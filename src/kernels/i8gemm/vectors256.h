// What AVX2 and AVX-VNNI share: a register holds eight rows of W by four k.
#pragma once

#include <immintrin.h>

#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::i8gemm {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

STATERA_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
STATERA_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

STATERA_INLINE int32_t four(const int8_t* x) {
  int32_t v;
  __builtin_memcpy(&v, x, 4);
  return v;
}

}  // namespace
}  // namespace statera::kernels::i8gemm
