// Trials and losses by chunks of rows: what one chunk needs stays in cache, chunks run in parallel and are summed in order.
#include "quant/methods/awq/algo.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/threads.h"
#include "quant/methods/rtn/algo.h"
#include "quant/search/gram.h"
#include "quant/search/grid.h"

namespace statera {
namespace {

constexpr int64_t kRows = 128;

at::Tensor trial(const at::Tensor& W_NK, const at::Tensor& scale_K, const QSpec& spec) {
  at::Tensor w = W_NK.to(at::kFloat);
  if (!scale_K.defined()) return rtn_rows(w.contiguous(), spec).q.dequantize();
  return rtn_rows((w * scale_K).contiguous(), spec).q.dequantize().div_(scale_K);
}

// Runs body(chunk of [0, count), its number) over chunks of kRows.
template <class F>
void by_chunks(int64_t count, F&& body) {
  parallel_for((count + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
    c10::InferenceMode mode;
    for (int64_t i = begin; i < end; ++i) body(i * kRows, std::min(count, (i + 1) * kRows), static_cast<size_t>(i));
  });
}

double squared_loss(const at::Tensor& W_NK, const at::Tensor& scale_K, const QSpec& spec, const at::Tensor& gram,
                    const at::Tensor& rows_KT) {
  const int64_t N = W_NK.size(0);
  std::vector<double> sums(static_cast<size_t>((N + kRows - 1) / kRows));
  by_chunks(N, [&](int64_t begin, int64_t end, size_t i) {
    const at::Tensor W = W_NK.slice(0, begin, end), D = trial(W, scale_K, spec).sub_(W);
    sums[i] = gram.defined() ? gram_loss(D, gram) : at::matmul(D, rows_KT).square_().sum(1).to(at::kDouble).sum().item<double>();
  });
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

}  // namespace

at::Tensor awq_trial(const at::Tensor& W_NK, const at::Tensor& scale_K, const QSpec& spec) {
  at::Tensor out = at::empty(W_NK.sizes(), W_NK.options().dtype(at::kFloat));
  by_chunks(W_NK.size(0),
            [&](int64_t begin, int64_t end, size_t) { out.slice(0, begin, end).copy_(trial(W_NK.slice(0, begin, end), scale_K, spec)); });
  return out;
}

ScaleChoice awq_search(std::span<const at::Tensor> readers_NK, const AwqInput& input, const at::Tensor& mean_abs_K,
                       std::span<const QSpec> specs, const ScaleGridOptions& options) {
  check(specs.size() == readers_NK.size(), "a spec for every reader");
  check(input.gram_KK.defined() != input.rows_TK.defined(), "a gram or rows");
  at::Tensor rows_KT;
  if (input.rows_TK.defined()) {
    rows_KT = input.rows_TK.to(at::kFloat);
    if (input.row_weight_T.defined()) rows_KT = rows_KT * at::sqrt(input.row_weight_T.to(at::kFloat)).unsqueeze(1);
    rows_KT = rows_KT.t();
  }
  return search_scale(mean_abs_K, options, [&](const at::Tensor& scale_K) {
    double loss = 0;
    for (size_t i = 0; i < readers_NK.size(); ++i) loss += squared_loss(readers_NK[i], scale_K, specs[i], input.gram_KK, rows_KT);
    return loss;
  });
}

ScaleChoice awq_search(std::span<const at::Tensor> readers_NK, const at::Tensor& mean_abs_K, const QSpec& spec, const AwqReplay& replay,
                       const ScaleGridOptions& options) {
  return search_scale(mean_abs_K, options, [&](const at::Tensor& scale_K) {
    std::vector<at::Tensor> trials;
    for (const at::Tensor& W : readers_NK) trials.push_back(awq_trial(W, scale_K, spec));
    return replay(trials);
  });
}

at::Tensor awq_shrink(const at::Tensor& W_NK, const at::Tensor& gram_KK, const QSpec& spec, const AwqClipOptions& options) {
  check_spec(spec, W_NK.size(1));
  check(gram_KK.size(0) == W_NK.size(1), "the gram belongs to another input");
  if (options.steps < 1 || options.steps > 256 || !(options.max_shrink >= 0 && options.max_shrink < 1)) {
    throw Error(ErrorKind::usage, "awq clip: 1 <= steps <= 256 and 0 <= max_shrink < 1 are needed");
  }
  const int64_t N = W_NK.size(0), K = W_NK.size(1), group = spec.group <= 0 ? K : spec.group;
  const QSpec whole = spec.whole_rows();
  const int candidates = std::max(1, static_cast<int>(options.max_shrink * options.steps + 1e-9));
  at::Tensor shrink_NG = at::empty({N, spec.groups(K)}, W_NK.options().dtype(at::kByte));
  parallel_for(spec.groups(K), 1, [&](int64_t first, int64_t last) {
    c10::InferenceMode mode;
    for (int64_t g = first; g < last; ++g) {
      const int64_t begin = g * group, end = std::min(K, begin + group);
      const at::Tensor w = W_NK.slice(1, begin, end).to(at::kFloat), gram = gram_KK.slice(0, begin, end).slice(1, begin, end);
      const at::Tensor widest = at::amax(at::abs(w), {1}, true);
      at::Tensor best = at::zeros_like(widest, at::kByte), least = at::full_like(widest, std::numeric_limits<float>::infinity());
      for (int i = 0; i < candidates; ++i) {
        const at::Tensor bound = widest * (1 - static_cast<double>(i) / options.steps);
        const at::Tensor D = trial(at::clamp(w, -bound, bound), {}, whole).sub_(w);
        const at::Tensor error = at::matmul(D, gram).mul_(D).sum(1, true);
        best.masked_fill_(error < least, i);
        least = at::where(error < least, error, least);
      }
      shrink_NG.slice(1, g, g + 1).copy_(best);
    }
  });
  return shrink_NG;
}

at::Tensor awq_bounds(const at::Tensor& W_NK, const at::Tensor& shrink_NG, const QSpec& spec, int64_t steps) {
  check(shrink_NG.size(0) == W_NK.size(0) && shrink_NG.size(1) == spec.groups(W_NK.size(1)), "ranges of another weight");
  std::vector<float> factors;
  for (int64_t i = 0; i < 256; ++i) factors.push_back(static_cast<float>(1 - static_cast<double>(i) / static_cast<double>(steps)));
  const at::Tensor factor = at::index_select(at::tensor(factors), 0, shrink_NG.reshape({-1}).to(at::kLong)).reshape(shrink_NG.sizes());
  return abs_max_of_groups(W_NK.to(at::kFloat), spec) * factor;
}

at::Tensor awq_clip(const at::Tensor& W_NK, const at::Tensor& gram_KK, const QSpec& spec, const AwqClipOptions& options) {
  return awq_bounds(W_NK, awq_shrink(W_NK, gram_KK, spec, options), spec, options.steps);
}

at::Tensor clamp_groups(const at::Tensor& W_NK, const at::Tensor& bound_NG, const QSpec& spec) {
  const at::Tensor bound = spread_groups(bound_NG, spec, W_NK.size(1));
  return at::clamp(W_NK.to(at::kFloat), -bound, bound).to(W_NK.scalar_type());
}

}  // namespace statera
