// Sums and samples of rows, in the order in which they come.
#include "quant/calib/accumulators.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace statera {
namespace {

at::Tensor kinds_of(const Pass& pass, int64_t rows) { return pass.kinds.defined() ? pass.kinds : at::zeros({rows}, at::kChar); }

}  // namespace

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
