// A model without weights for the tests of this folder: what it says next is a sum over (id + 1) * (position + 1) of the tokens it has
// read, kept in the cache as a real model keeps keys. Wrong ids, positions, bounds or caches change every later token.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <vector>

#include "base/error.h"
#include "nn/kv_cache.h"
#include "nn/model.h"

namespace statera {

class FakeStack : public LanguageStack {
 public:
  int64_t vocabulary = 50;
  int64_t switch_at = std::numeric_limits<int64_t>::max();  // caches from below this length are invalid from it on
  mutable std::vector<int64_t> rows;                        // of every pass
  bool broken = false;

  int64_t blocks() const override { return 1; }
  at::Tensor enter(const at::Tensor& ids, const VisualFeatures*, Pass& pass) const override {
    rows.push_back(ids.size(0));
    if (broken) throw Error(ErrorKind::memory, "no room");
    at::Tensor p = pass.positions.dim() == 2 ? pass.positions.select(0, 0) : pass.positions;
    return ((ids + 1) * (p + 1)).to(at::kDouble).unsqueeze(1);
  }
  at::Tensor block(int64_t, const at::Tensor& h, Pass& pass) const override {
    std::vector<at::Tensor> out;
    for (size_t s = 0; s + 1 < pass.bounds.size(); ++s) {
      at::Tensor part = h.slice(0, pass.bounds[s], pass.bounds[s + 1]), all = part.unsqueeze(1);
      if (!pass.caches.empty()) {
        pass.caches[s]->append(0, all, all);
        all = pass.caches[s]->rows(0, at::kDouble).first;
      }
      at::Tensor sums = all.squeeze(1).cumsum(0);
      int64_t length = all.size(0);
      // as with longrope: past the switch everything is seen differently, and only a rebuilt cache shows it
      out.push_back(sums.slice(0, length - part.size(0), length) + (length >= switch_at && part.size(0) == 1 ? 1 : 0));
    }
    return at::cat(out, 0);
  }
  Topology topology(int64_t) const override { return {}; }
  at::Tensor leave(const at::Tensor& h, const Pass&) const override { return h; }
  at::Tensor head(const at::Tensor& h, const Pass&) const override {
    at::Tensor logits = at::zeros({h.size(0), vocabulary});
    for (int64_t i = 0; i < h.size(0); ++i) {
      logits[i][static_cast<int64_t>(h[i].item<double>()) % vocabulary] = 5;
    }
    return logits;
  }
  bool cache_valid(int64_t before, int64_t after) const override { return before >= switch_at || after < switch_at; }
};

class FakeModel : public Model {
 public:
  FakeStack stack;
  int64_t max_positions = 1000;
  int64_t shift = 0;  // of positions, three rows when not 0
  const LanguageStack& language() const override { return stack; }
  ResidualEnds residual_ends() const override { return {}; }
  ModelLimits limits() const override { return {stack.vocabulary, 1, 1, 1, 1, max_positions}; }
  std::pair<at::Tensor, std::vector<int64_t>> positions(const ModelInputs& inputs) const override {
    auto [p, next] = Model::positions(inputs);
    if (shift == 0) return {p, next};
    for (int64_t& n : next) n += shift;
    return {(p + shift).unsqueeze(0).expand({3, -1}), next};
  }
};

// What the model answers to a prompt, by its definition.
inline std::vector<int64_t> fake_answer(const FakeModel& model, std::vector<int64_t> prompt, int64_t tokens) {
  std::vector<int64_t> out;
  int64_t sum = 0, position = model.shift;
  for (int64_t id : prompt) sum += (id + 1) * (++position);
  while (static_cast<int64_t>(out.size()) < tokens) {
    out.push_back(sum % model.stack.vocabulary);
    sum += (out.back() + 1) * (++position);
  }
  return out;
}

}  // namespace statera
