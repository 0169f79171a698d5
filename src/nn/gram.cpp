// Sums over chunks of rows of fixed size, through a product whose elements do not depend on how it is split: the number of threads changes
// who computes an element and nothing else.
#include "nn/gram.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/gram/gram.h"

namespace statera {
namespace gk = kernels::gram;

Gram::Gram(int64_t width) : G_KK_(at::zeros({width, width}, at::kFloat)) {}

void Gram::add(const at::Tensor& x_TK, const at::Tensor& weight_T) {
  const int64_t K = G_KK_.size(0);
  check(x_TK.dim() == 2 && x_TK.size(1) == K, "gram of another width");
  check(weight_T.defined() == weights_.defined() || rows_ == 0, "a gram with and without weights");
  if (x_TK.size(0) == 0) return;
  if (!packed_.defined()) packed_ = at::empty({gk::packed_size(K)}, at::kFloat);
  if (weight_T.defined() && !weights_.defined()) weights_ = at::empty({gk::kRows}, at::kFloat);
  const at::Tensor x = x_TK.to(at::kFloat), rows = x.stride(1) == 1 ? x : x.contiguous();
  for (int64_t from = 0; from < x.size(0);) {
    const int64_t count = std::min(x.size(0) - from, gk::kRows - filled_);
    const float* data = rows.const_data_ptr<float>() + from * rows.stride(0);
    parallel_for(gk::panels(K), 4, [&](int64_t begin, int64_t end) {
      gk::pack(data, rows.stride(0), K, filled_, count, packed_.mutable_data_ptr<float>(), begin, end);
    });
    if (weight_T.defined()) weights_.slice(0, filled_, filled_ + count).copy_(weight_T.slice(0, from, from + count));
    from += count;
    filled_ += count;
    if (filled_ == gk::kRows) take_in();
  }
  rows_ += x.size(0);
  mirrored_ = false;
}

void Gram::take_in() {
  const int64_t K = G_KK_.size(0), strips = gk::strips(K);
  const float* weights = weights_.defined() ? weights_.const_data_ptr<float>() : nullptr;
  // The longest strips first.
  parallel_for(strips, 1, [&](int64_t begin, int64_t end) {
    gk::add(packed_.const_data_ptr<float>(), filled_, K, weights, G_KK_.mutable_data_ptr<float>(), K, strips - end, strips - begin);
  });
  filled_ = 0;
}

const at::Tensor& Gram::value() {
  if (mirrored_) return G_KK_;
  if (filled_ > 0) take_in();
  packed_ = at::Tensor();
  constexpr int64_t kTile = 64;
  const int64_t K = G_KK_.size(0);
  float* g = G_KK_.mutable_data_ptr<float>();
  parallel_for((K + kTile - 1) / kTile, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i0 = begin * kTile; i0 < std::min(K, end * kTile); i0 += kTile)
      for (int64_t j0 = 0; j0 <= i0; j0 += kTile)
        for (int64_t i = i0; i < std::min(K, i0 + kTile); ++i)
          for (int64_t j = j0; j < std::min(i, j0 + kTile); ++j) g[j * K + i] = g[i * K + j];
  });
  mirrored_ = true;
  return G_KK_;
}

}  // namespace statera
