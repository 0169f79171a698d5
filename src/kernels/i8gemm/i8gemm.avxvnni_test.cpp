// i8gemm.avxvnni.cpp once more, compiled for AVX-512's encoding of the same instruction. Cases: i8gemm_test.cpp.
#include "kernels/i8gemm/twins_test.h"

#define kAvxVnni kAvxVnniTwin
#include "kernels/i8gemm/i8gemm.avxvnni.cpp"  // NOLINT(bugprone-suspicious-include): a second object of it
