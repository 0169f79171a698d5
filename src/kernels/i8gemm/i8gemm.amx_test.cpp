// i8gemm.amx.cpp once more, on emulated tiles. Cases: i8gemm_test.cpp.
#include "kernels/emulated_tiles_test.h"
#include "kernels/i8gemm/twins_test.h"

#define kAmx kAmxTwin
#include "kernels/i8gemm/i8gemm.amx.cpp"  // NOLINT(bugprone-suspicious-include): a second object of it

namespace statera::kernels::i8gemm {

bool tiles_configured() { return emulated.configured; }

}  // namespace statera::kernels::i8gemm
