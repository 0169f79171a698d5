// The specification of the product with the values.
#include "kernels/attn/attn.h"

namespace statera::kernels::attn {
namespace {

void weigh(const float* p, int64_t rows, const float* v, int64_t ldv, int64_t keys, int64_t n, float* o, int64_t ldo) noexcept {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < keys; ++j)
      for (int64_t c = 0; c < n; ++c) o[r * ldo + c] += p[r * kKeys + j] * v[j * ldv + c];
}

}  // namespace

const Table kScalar = {weigh};

}  // namespace statera::kernels::attn
