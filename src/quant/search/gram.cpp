// Gram accumulation and the loss that it gives.
#include "quant/search/gram.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/sum.h>

#include "base/error.h"

namespace statera {

void add_gram(at::Tensor& gram_KK, const at::Tensor& x_TK, const at::Tensor& row_weight_T, double exponent) {
  check(x_TK.dim() == 2 && gram_KK.dim() == 2 && gram_KK.size(0) == x_TK.size(1) && gram_KK.size(1) == x_TK.size(1), "gram shape");
  check(gram_KK.scalar_type() == at::kFloat, "grams are fp32");
  if (x_TK.size(0) == 0) return;
  at::Tensor x = x_TK.to(at::kFloat);
  if (row_weight_T.defined()) {
    check(row_weight_T.dim() == 1 && row_weight_T.size(0) == x.size(0), "one weight per row");
    x = x * at::pow(row_weight_T.to(at::kFloat), exponent / 2).unsqueeze(1);
  }
  gram_KK.addmm_(x.t(), x);
}

double gram_loss(const at::Tensor& D_NK, const at::Tensor& gram_KK) {
  check(D_NK.dim() == 2 && gram_KK.size(0) == D_NK.size(1) && gram_KK.size(1) == D_NK.size(1), "gram shape");
  at::Tensor d = D_NK.to(at::kFloat);
  at::Tensor rows = at::matmul(d, gram_KK.to(at::kFloat)).mul_(d).sum(1);
  return rows.to(at::kDouble).sum().item<double>();
}

}  // namespace statera
