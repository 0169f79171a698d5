// Seeded weights and activations for the tests of methods: normal weights with rows of different size, activations that are correlated
// and have channels much larger than others, as real layers do.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include "base/rng.h"
#include "quant/calib/accumulators.h"
#include "quant/search/gram.h"

namespace statera {

inline at::Tensor normal_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  Rng rng(seed, 77);
  at::Tensor t = at::empty({rows, columns}, at::kFloat);
  float* p = t.mutable_data_ptr<float>();
  for (int64_t i = 0; i < t.numel(); ++i) p[i] = static_cast<float>(rng.normal_at(static_cast<uint64_t>(i)));
  return t;
}

inline at::Tensor weight_matrix(int64_t N, int64_t K, uint64_t seed) {
  return normal_matrix(N, K, seed) * (0.02 * (normal_matrix(N, 1, seed + 1) * 0.5).exp());
}

// Rows x_t = z_t A with z normal of K/4 + 8 dimensions plus a little noise of its own; one channel in 16 is 20 times as large.
inline at::Tensor activations(int64_t T, int64_t K, uint64_t seed) {
  const int64_t hidden = K / 4 + 8;
  at::Tensor x = at::matmul(normal_matrix(T, hidden, seed), normal_matrix(hidden, K, seed + 1)) * 0.2 + normal_matrix(T, K, seed + 2) * 0.3;
  at::Tensor size = at::empty({K}, at::kFloat).fill_(1);
  for (int64_t k = static_cast<int64_t>(seed % 16); k < K; k += 16) size[k] = 20;
  return x * size;
}

inline at::Tensor gram_of(const at::Tensor& x_TK, const at::Tensor& row_weight_T = {}) {
  Gram gram(x_TK.size(1));
  gram.add(x_TK, row_weight_T);
  return gram.value();
}

}  // namespace statera
