// The loss by chunks of rows, summed in order; of the gram, which is symmetric, the blocks on and below its diagonal.
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
  constexpr int64_t kRows = 256, kColumns = 512;
  const int64_t N = D_NK.size(0), K = D_NK.size(1);
  std::vector<double> sums(static_cast<size_t>((N + kRows - 1) / kRows));
  parallel_for(static_cast<int64_t>(sums.size()), 1, [&](int64_t first, int64_t last) {
    c10::InferenceMode mode;
    for (int64_t i = first; i < last; ++i) {
      const at::Tensor d = D_NK.slice(0, i * kRows, std::min(N, (i + 1) * kRows)).to(at::kFloat);
      double& sum = sums[static_cast<size_t>(i)];
      for (int64_t begin = 0; begin < K; begin += kColumns) {
        const int64_t end = std::min(K, begin + kColumns);
        auto part = [&](int64_t from, int64_t to) {
          return at::matmul(d.slice(1, from, to), gram_KK.slice(0, from, to).slice(1, begin, end)).mul_(d.slice(1, begin, end)).sum(1).to(at::kDouble).sum().item<double>();
        };
        sum += part(begin, end);
        if (end < K) sum += 2 * part(end, K);
      }
    }
  });
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

}  // namespace statera
