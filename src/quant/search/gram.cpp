// The loss by chunks of rows, summed in order.
#include "quant/search/gram.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/threads.h"

namespace statera {

double gram_loss(const at::Tensor& D_NK, const at::Tensor& gram_KK) {
  check(D_NK.dim() == 2 && gram_KK.size(0) == D_NK.size(1) && gram_KK.size(1) == D_NK.size(1), "gram shape");
  constexpr int64_t kRows = 128;
  const int64_t N = D_NK.size(0);
  std::vector<double> sums(static_cast<size_t>((N + kRows - 1) / kRows));
  parallel_for(static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
    c10::InferenceMode mode;
    for (int64_t i = begin; i < end; ++i) {
      const at::Tensor d = D_NK.slice(0, i * kRows, std::min(N, (i + 1) * kRows)).to(at::kFloat);
      sums[static_cast<size_t>(i)] = at::matmul(d, gram_KK).mul_(d).sum(1).to(at::kDouble).sum().item<double>();
    }
  });
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

}  // namespace statera
