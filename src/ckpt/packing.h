// Codes of 2 to 8 bits in 32-bit words, as compressed-tensors lays them out: code q of b bits is stored as q + 2^(b-1); element i of
// a row occupies bits i*b .. i*b+b-1 of the row, little end first, so a code may straddle two words. Rows start at a word.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace statera {

enum class Packing {
  dense,   // ceil(K*b/32) words a row
  sparse,  // floor(32/b) codes a word, the rest unused: what compressed-tensors before 0.18 wrote (differs for 3, 5, 6, 7 bits)
};
int64_t packed_words(int64_t columns, int bits, Packing packing = Packing::dense);

// i8 [N, K], codes in [-2^(b-1), 2^(b-1)-1] -> i32 [N, words].
at::Tensor pack_codes(const at::Tensor& q_NK, int bits);
// i32 [N, words] -> i8 [N, K]. The word count must fit (a Bug otherwise: readers check shapes first).
at::Tensor unpack_codes(const at::Tensor& packed_NW, int64_t columns, int bits, Packing packing = Packing::dense);

}  // namespace statera
