// Sums over chunks of rows of fixed size, through a product whose elements do not depend on how it is split: the number of threads changes
// who computes an element and nothing else.
#include "quant/calib/accumulators.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kChunk = 2048, kTile = 384;  // rows taken in at once; rows of a product (twice what the kernel keeps in cache)

at::Tensor kinds_of(const Pass& pass, int64_t rows) { return pass.kinds.defined() ? pass.kinds : at::zeros({rows}, at::kChar); }

// target [K, n] = rows^T [n, K], by strips of channels over the threads.
void transpose_into(const at::Tensor& target_Kn, const at::Tensor& rows_nK) {
  parallel_for(target_Kn.size(0), 64, [&](int64_t begin, int64_t end) {
    c10::InferenceMode no_gradients;
    target_Kn.slice(0, begin, end).copy_(rows_nK.slice(1, begin, end).t());
  });
}

}  // namespace

Gram::Gram(int64_t width) : G_KK_(at::zeros({width, width}, at::kFloat)) {}

void Gram::add(const at::Tensor& x_TK, const at::Tensor& weight_T) {
  const int64_t K = G_KK_.size(0);
  check(x_TK.dim() == 2 && x_TK.size(1) == K, "gram of another width");
  check(weight_T.defined() == weighted_KT_.defined() || rows_ == 0, "a gram with and without weights");
  if (x_TK.size(0) == 0) return;
  if (rows_ == 0 || !rows_KT_.defined()) {
    // A row is a little longer than a power of two: channels read side by side must not fall into the same cache sets.
    rows_KT_ = at::empty({K, kChunk + 16}, at::kFloat).slice(1, 0, kChunk);
    if (weight_T.defined()) weighted_KT_ = at::empty({K, kChunk + 16}, at::kFloat).slice(1, 0, kChunk);
  }
  const at::Tensor x = x_TK.to(at::kFloat);
  for (int64_t from = 0; from < x.size(0);) {
    const int64_t count = std::min(x.size(0) - from, kChunk - filled_);
    const at::Tensor rows = x.slice(0, from, from + count);
    transpose_into(rows_KT_.slice(1, filled_, filled_ + count), rows);
    if (weight_T.defined()) transpose_into(weighted_KT_.slice(1, filled_, filled_ + count), rows * weight_T.slice(0, from, from + count).to(at::kFloat).unsqueeze(1));
    from += count;
    filled_ += count;
    if (filled_ == kChunk) take_in();
  }
  rows_ += x.size(0);
  mirrored_ = false;
}

void Gram::take_in() {
  const int64_t K = G_KK_.size(0);
  const at::Tensor all = rows_KT_.slice(1, 0, filled_), left = weighted_KT_.defined() ? weighted_KT_.slice(1, 0, filled_) : all;
  const c10::InferenceMode no_gradients;
  for (int64_t from = 0; from < K; from += kTile) {
    const int64_t to = std::min(K, from + kTile);
    G_KK_.slice(0, from, to).slice(1, 0, to).add_(make_dense(all.slice(0, 0, to))->apply(left.slice(0, from, to), nullptr));
  }
  filled_ = 0;
}

const at::Tensor& Gram::value() {
  if (mirrored_) return G_KK_;
  if (filled_ > 0) take_in();
  rows_KT_ = weighted_KT_ = at::Tensor();
  const int64_t K = G_KK_.size(0), tiles = (K + kTile - 1) / kTile;
  auto tile = [&](int64_t i, int64_t j) { return G_KK_.slice(0, i * kTile, std::min(K, (i + 1) * kTile)).slice(1, j * kTile, std::min(K, (j + 1) * kTile)); };
  parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
    c10::InferenceMode no_gradients;
    for (int64_t i = begin; i < end; ++i) {
      tile(i, i).copy_((tile(i, i).tril() + tile(i, i).tril(-1).t()));
      for (int64_t j = 0; j < i; ++j) tile(j, i).copy_(tile(i, j).t());
    }
  });
  mirrored_ = true;
  return G_KK_;
}

std::shared_ptr<Gram> GramPool::shared(const at::Tensor& x) const {
  const bool same = x_.defined() && x_.const_data_ptr() == x.const_data_ptr() && x_.sizes() == x.sizes() && x_.strides() == x.strides();
  return same ? gram_ : nullptr;
}

void GramPool::remember(const at::Tensor& x, std::shared_ptr<Gram> gram) {
  x_ = x;
  gram_ = std::move(gram);
}

void GramAccumulator::add(const at::Tensor& x, const Pass& pass) {
  std::shared_ptr<Gram> before = pool_->shared(x);
  if (!gram_) {
    gram_ = before ? before : std::make_shared<Gram>(x.size(1));
    owner_ = !before;
  }
  if (!owner_) {
    check(before == gram_, "layers that shared an input read different ones now");
    return;
  }
  gram_->add(x, weighted_ ? pass.row_weight : at::Tensor());
  pool_->remember(x, gram_);
}

void AbsMaxAccumulator::add(const at::Tensor& x, const Pass&) {
  if (x.size(0) == 0) return;
  const at::Tensor m = at::amax(at::abs(x.to(at::kFloat)), {0});
  max_K_ = max_K_.defined() ? at::maximum(max_K_, m) : m;
}

InputKeeper::InputKeeper(int64_t limit, int64_t expected_rows, uint64_t seed)
    : share_(limit <= 0 || expected_rows <= limit ? 1.0 : static_cast<double>(limit) / static_cast<double>(expected_rows)) {
  const Rng rng(seed);
  for (size_t kind = 0; kind < owed_.size(); ++kind) owed_[kind] = share_ == 1 ? 0 : rng.uniform_at(kind);
}

void InputKeeper::add(const at::Tensor& x, const Pass& pass) {
  const at::Tensor kinds = kinds_of(pass, x.size(0)).contiguous();
  const int8_t* kind = kinds.const_data_ptr<int8_t>();
  std::vector<int64_t> taken;
  for (int64_t r = 0; r < x.size(0); ++r) {
    double& owed = owed_.at(static_cast<size_t>(kind[r]));
    owed += share_;
    if (owed < 1) continue;
    owed -= 1;
    taken.push_back(r);
  }
  if (taken.empty()) return;
  const at::Tensor index = at::tensor(taken, at::kLong);
  parts_.push_back(at::index_select(x.to(at::kFloat), 0, index));
  kinds_.push_back(at::index_select(kinds, 0, index));
}

at::Tensor InputKeeper::rows() const { return parts_.empty() ? at::Tensor() : at::cat(parts_, 0); }
at::Tensor InputKeeper::kinds() const { return kinds_.empty() ? at::Tensor() : at::cat(kinds_, 0); }

}  // namespace statera
