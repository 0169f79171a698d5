// Gram: what the rows that a layer reads say about the error of its output: sum of w x x^T. Where rows of tensors meet the kernel of
// kernels/gram. Knows neither samples nor methods.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace statera {

// Sum of w x x^T over rows x, w = 1 or what is given (routing affinity). fp32. Rows are gathered and taken in by chunks of fixed size, so that the
// triangle is gone through once per chunk, not once per sample.
class Gram {
 public:
  explicit Gram(int64_t width);
  void add(const at::Tensor& x_TK, const at::Tensor& weight_T);
  // Symmetric [K, K]. The caller must not write to it.
  const at::Tensor& value();
  // The same, given away: this object is of no use any more.
  at::Tensor take() {
    value();
    return std::move(G_KK_);
  }
  int64_t rows() const { return rows_; }

 private:
  void take_in();
  at::Tensor G_KK_;            // lower triangle until value()
  at::Tensor packed_, weights_;  // the chunk that fills, as the kernel reads it, and its rows' weights
  int64_t filled_ = 0, rows_ = 0;
  bool mirrored_ = true;
};

}  // namespace statera
