// Dispatch. Division decides, which is no faster in wider vectors than AVX2's.
#include "kernels/rounding/rounding.h"

#include "kernels/cpu.h"

namespace statera::kernels::rounding {

const Table& table() { return table_of(kScalar, kAvx2, kAvx2, kAvx2); }

}  // namespace statera::kernels::rounding
