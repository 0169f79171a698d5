// Dispatch.
#include "kernels/elementwise/elementwise.h"

#include "kernels/cpu.h"

namespace statera::kernels::elementwise {

const Table& table() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }

}  // namespace statera::kernels::elementwise
