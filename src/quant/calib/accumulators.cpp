// Tiled sums. A tile is one single-threaded product, so the number of threads changes who computes it and nothing else.
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

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kTile = 256;

at::Tensor kinds_of(const Pass& pass, int64_t rows) { return pass.kinds.defined() ? pass.kinds : at::zeros({rows}, at::kChar); }

}  // namespace

Gram::Gram(int64_t width) : G_KK_(at::zeros({width, width}, at::kFloat)) {}

void Gram::add(const at::Tensor& x_TK, const at::Tensor& weight_T) {
  check(x_TK.dim() == 2 && x_TK.size(1) == G_KK_.size(0), "gram of another width");
  if (x_TK.size(0) == 0) return;
  const at::Tensor x = x_TK.to(at::kFloat).contiguous();
  const at::Tensor weighted = weight_T.defined() ? x * weight_T.to(at::kFloat).unsqueeze(1) : x;
  const int64_t K = x.size(1), tiles = (K + kTile - 1) / kTile;
  parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t from = t * kTile, to = std::min(K, from + kTile);
      G_KK_.slice(0, from, K).slice(1, from, to).addmm_(weighted.slice(1, from, K).t(), x.slice(1, from, to));
    }
  });
  rows_ += x.size(0);
  mirrored_ = false;
}

const at::Tensor& Gram::value() {
  if (mirrored_) return G_KK_;
  G_KK_.copy_(G_KK_.tril() + G_KK_.tril(-1).t());
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

void GramAccumulator::add(const at::Tensor& x, const at::Tensor&, const Pass& pass) {
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

void AbsMaxAccumulator::add(const at::Tensor& x, const at::Tensor&, const Pass&) {
  if (x.size(0) == 0) return;
  const at::Tensor m = at::amax(at::abs(x.to(at::kFloat)), {0});
  max_K_ = max_K_.defined() ? at::maximum(max_K_, m) : m;
}

InputKeeper::InputKeeper(int64_t limit, int64_t expected_rows, uint64_t seed)
    : share_(limit <= 0 || expected_rows <= limit ? 1.0 : static_cast<double>(limit) / static_cast<double>(expected_rows)) {
  const Rng rng(seed);
  for (size_t kind = 0; kind < owed_.size(); ++kind) owed_[kind] = share_ == 1 ? 0 : rng.uniform_at(kind);
}

void InputKeeper::add(const at::Tensor& x, const at::Tensor&, const Pass& pass) {
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
