// Sums and rows, sample by sample in order.
#include "quant/methods/mbq/group_input.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/sum.h>

#include <algorithm>

namespace statera {

void GroupInput::add(const at::Tensor& x, const Pass& pass) {
  const at::Tensor sum = at::sum(at::abs(x), {0}, false, at::kDouble);
  sum_K_ = sum_K_.defined() ? sum_K_ + sum : sum;
  rows_ += x.size(0);
  if (sequences_) return add_sequence(x, pass);
  if (!gram && !keeper_) begin(x.size(1));
  if (gram) gram->add(x, {});
  if (keeper_) keeper_->add(x, pass);
}

std::vector<InputPart> GroupInput::take_parts() {
  constexpr int64_t kRows = 512;  // of a piece: rows do not depend on each other
  const at::Tensor rows = keeper_ ? keeper_->rows() : at::Tensor(), kinds = keeper_ ? keeper_->kinds() : at::Tensor();
  for (int64_t from = 0; rows.defined() && from < rows.size(0); from += kRows) {
    const int64_t to = std::min(rows.size(0), from + kRows);
    Pass pass;
    pass.bounds = one_sequence(to - from);
    parts_.push_back({rows.slice(0, from, to), kinds.slice(0, from, to), std::move(pass)});
  }
  return std::move(parts_);
}

void GroupInput::begin(int64_t width) {
  const int64_t kept = settings_.search_tokens > 0 ? std::min(settings_.search_tokens, settings_.data_tokens) : settings_.data_tokens;
  if (gram_allowed_ && (settings_.search_tokens == 0 || width <= kept)) {
    gram = std::make_unique<Gram>(width);
  } else {
    keeper_ = std::make_unique<InputKeeper>(settings_.search_tokens, settings_.data_tokens, settings_.seed);
  }
}

// Whole samples, those with pictures and those without each by its share; of each at least the first.
void GroupInput::add_sequence(const at::Tensor& x, const Pass& pass) {
  const bool all = settings_.search_tokens <= 0 || settings_.data_tokens <= settings_.search_tokens;
  const double share = all ? 1 : static_cast<double>(settings_.search_tokens) / static_cast<double>(settings_.data_tokens);
  const auto T = static_cast<double>(x.size(0));
  auto& [seen, kept] = tokens_[(pass.kinds == static_cast<int64_t>(kVision)).any().item<bool>()];
  seen += T;
  if (!all && kept > 0 && kept + T / 2 > share * seen) return;
  kept += T;
  parts_.push_back({x.to(at::kFloat).clone(), pass.kinds, pass});
  parts_.back().pass.tap = nullptr;
}

}  // namespace statera
