// The kernels of machines that are rare, compiled a second time so that any machine with AVX-512 runs them: for tests only.
#pragma once

#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::i8gemm {

extern const Micro kAvxVnniTwin;  // vpdpbusd in AVX-512's encoding
extern const Micro kAmxTwin;      // tiles emulated
bool tiles_configured();          // emulated ones, on the calling thread

}  // namespace statera::kernels::i8gemm
