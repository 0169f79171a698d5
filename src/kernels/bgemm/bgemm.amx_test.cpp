// bgemm.amx.cpp once more, on emulated tiles, with the specification for what they leave. Cases: bgemm_test.cpp.
#include "kernels/bgemm/bgemm.h"
#include "kernels/emulated_tiles_test.h"

namespace statera::kernels::bgemm {
extern const Micro kAmxTwin;
}

#define kAmx kAmxTwin
#define kAvx512Bf16 kScalar
#include "kernels/bgemm/bgemm.amx.cpp"  // NOLINT(bugprone-suspicious-include): a second object of it
