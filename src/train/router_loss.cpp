// See router_loss.h. With f_e and N fixed, the auxiliary loss is linear in the probabilities: E / N^2 * sum of rows_e * probs_te.
#include "train/router_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>

#include "base/error.h"
#include "nn/moe.h"

namespace statera {
namespace {

at::Tensor squared_logsumexp(const at::Tensor& logits_TE) {
  const at::Tensor z = at::logsumexp(logits_TE.to(at::kFloat), {-1});
  return (z * z).sum();
}

}  // namespace

void RouterLosses::router(const LinearSite&, const at::Tensor& logits, const at::Tensor& probs, const Routing& routing, const Pass&) {
  if (at::GradMode::is_enabled() && logits.requires_grad()) heard_.emplace_back(logits, probs);
  if (settled_) return;
  at::NoGradGuard no_graph;
  const auto E = static_cast<size_t>(probs.size(1));
  if (rows_.empty()) {
    rows_.resize(E);
    probs_.resize(E);
  }
  check(rows_.size() == E, "layers of one number of experts");
  const at::Tensor sums = probs.detach().sum(0).contiguous();
  for (size_t e = 0; e < E; ++e) {
    rows_[e] += static_cast<double>(routing.count(static_cast<int64_t>(e)));
    probs_[e] += sums.const_data_ptr<float>()[e];
  }
  squares_ += squared_logsumexp(logits.detach()).item<double>();
  count_ += static_cast<double>(probs.size(0));
}

RouterLoss RouterLosses::settle() {
  settled_ = true;
  RouterLoss out;
  if (count_ == 0) return out;
  for (size_t e = 0; e < rows_.size(); ++e) out.aux += rows_[e] / count_ * probs_[e] / count_;
  out.aux *= static_cast<double>(rows_.size());
  out.z = squares_ / count_;
  return out;
}

at::Tensor RouterLosses::term(RouterLoss weights) {
  check(settled_, "the rows of experts are known when all blocks have run");
  std::vector<float> by_expert;
  for (double rows : rows_) by_expert.push_back(static_cast<float>(weights.aux * static_cast<double>(rows_.size()) * rows / (count_ * count_)));
  const at::Tensor weight_E = at::tensor(by_expert, at::kFloat);
  at::Tensor sum;
  for (const auto& [logits, probs] : heard_) {
    at::Tensor part;
    if (weights.aux > 0) part = (probs * weight_E).sum();
    if (weights.z > 0) {
      const at::Tensor z = squared_logsumexp(logits) * (weights.z / count_);
      part = part.defined() ? part + z : z;
    }
    if (part.defined()) sum = sum.defined() ? sum + part : part;
  }
  heard_.clear();
  return sum;
}

}  // namespace statera
