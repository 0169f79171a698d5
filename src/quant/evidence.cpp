// Sampling, and three products per layer over slices of rows of W.
#include "quant/evidence.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr double kOutlier = 10;  // times the median
constexpr size_t kTop = 5;

uint64_t threshold_of(int64_t expected) {
  return expected <= Evidence::kRowsPerKind
             ? ~uint64_t{0}
             : static_cast<uint64_t>(static_cast<double>(Evidence::kRowsPerKind) / static_cast<double>(expected) * 0x1p64);
}

InputRange range_of(const at::Tensor& max_K) {
  const at::Tensor flat = max_K.contiguous();
  const float* p = flat.const_data_ptr<float>();
  std::vector<std::pair<int64_t, double>> channels;
  for (int64_t k = 0; k < flat.numel(); ++k) channels.emplace_back(k, p[k]);
  auto larger = [](const auto& a, const auto& b) { return std::pair(-a.second, a.first) < std::pair(-b.second, b.first); };
  std::sort(channels.begin(), channels.end(), larger);
  InputRange out;
  out.median = channels[channels.size() / 2].second;
  for (const auto& c : channels) out.outliers += out.median > 0 && c.second > kOutlier * out.median;
  channels.resize(std::min(kTop, channels.size()));
  out.top = std::move(channels);
  return out;
}

QTensor rows_of(const QTensor& q, int64_t from, int64_t to) {
  return {q.spec, q.q.slice(0, from, to), q.scale.slice(0, from, to), q.zero.defined() ? q.zero.slice(0, from, to) : at::Tensor()};
}

void add_squares(const at::Tensor& e_TN, std::vector<double>& into) {
  const at::Tensor sums = at::sum(e_TN.square(), {1}, false, at::kDouble).contiguous();
  for (size_t t = 0; t < into.size(); ++t) into[t] += sums.const_data_ptr<double>()[t];
}

}  // namespace

KindLoss LayerEvidence::total() const {
  KindLoss out;
  for (const KindLoss* k : {&text, &vision}) {
    if (k->rows == 0) continue;
    const double share = static_cast<double>(k->seen) / static_cast<double>(k->rows);
    out.error += share * k->error;
    out.rtn += share * k->rtn;
    out.output += share * k->output;
    out.rows += k->rows;
    out.seen += k->seen;
  }
  return out;
}

Evidence::Evidence(int64_t text_tokens, int64_t vision_tokens, uint64_t seed)
    : threshold_{threshold_of(text_tokens), threshold_of(vision_tokens)}, seed_(seed) {}

void Evidence::add(const LinearSite& site, const at::Tensor& x, const Pass& pass) {
  if (x.size(0) == 0) return;
  const bool same = last_.defined() && last_.const_data_ptr() == x.const_data_ptr() && last_.sizes() == x.sizes();
  std::shared_ptr<Input>& mine = inputs_[&site];
  if (!mine) mine = same ? last_input_ : std::make_shared<Input>();
  if (same && mine == last_input_) return;
  last_ = x;
  last_input_ = mine;
  Input& in = *mine;
  const bool kinds = pass.kinds.defined() && pass.kinds.size(0) == x.size(0);
  const at::Tensor kind_T = kinds ? pass.kinds.contiguous() : at::Tensor();
  const Rng rng(seed_);
  std::vector<int64_t> taken;
  for (int64_t r = 0; r < x.size(0); ++r) {
    const bool vision = kinds && kind_T.const_data_ptr<int8_t>()[r] == kVision;
    if (rng.at(static_cast<uint64_t>(in.seen[0] + in.seen[1])) <= threshold_[vision]) {
      taken.push_back(r);
      in.kinds.push_back(vision);
    }
    ++in.seen[vision];
  }
  if (!taken.empty()) in.parts.push_back(at::index_select(x, 0, at::tensor(taken, at::kLong)).to(at::kFloat));
  const at::Tensor max = at::amax(at::abs(x), {0}).to(at::kFloat);
  in.max_K = in.max_K.defined() ? at::maximum(in.max_K, max) : max;
}

float Evidence::largest_input(const LinearSite& site, const at::Tensor& in_K) const {
  const at::Tensor& max_K = inputs_.at(&site)->max_K;
  return (in_K.defined() ? max_K / in_K : max_K).max().item<float>();
}

std::optional<LayerEvidence> Evidence::measure(const LinearSite& site, const at::Tensor& W_NK, const QTensor& q, const at::Tensor& in_K,
                                               const at::Tensor& out_N, const std::optional<ActQuant>& act) const {
  constexpr int64_t kRows = 256;
  auto it = inputs_.find(&site);
  if (it == inputs_.end()) return std::nullopt;
  const Input& in = *it->second;
  LayerEvidence out;
  out.input = range_of(in.max_K);
  out.text.seen = in.seen[0];
  out.vision.seen = in.seen[1];
  if (in.parts.empty()) return out;
  const at::Tensor x = at::cat(in.parts, 0);
  const at::Tensor folded = in_K.defined() ? x / in_K : x;
  const at::Tensor xq = act ? fake_quantize(folded, *act) : folded, xr = act ? fake_quantize(x, *act) : x;
  const int64_t N = W_NK.size(0), slices = (N + kRows - 1) / kRows;
  const size_t T = in.kinds.size();
  struct Sums {
    std::vector<double> error, rtn, output;
  };
  std::vector<Sums> sums(static_cast<size_t>(slices), {std::vector<double>(T), std::vector<double>(T), std::vector<double>(T)});
  parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
    c10::InferenceMode no_gradients;
    for (int64_t s = begin; s < end; ++s) {
      const int64_t from = s * kRows, to = std::min(N, from + kRows);
      const at::Tensor W = W_NK.slice(0, from, to).contiguous(), y = at::mm(x, W.to(at::kFloat).t());
      at::Tensor got = at::mm(xq, rows_of(q, from, to).dequantize().t());
      if (out_N.defined()) got = got * out_N.slice(0, from, to);
      Sums& sum = sums[static_cast<size_t>(s)];
      add_squares(got - y, sum.error);
      add_squares(at::mm(xr, rtn(W, q.spec).dequantize().t()) - y, sum.rtn);
      add_squares(y, sum.output);
    }
  });
  for (size_t t = 0; t < T; ++t) {
    KindLoss& k = in.kinds[t] ? out.vision : out.text;
    ++k.rows;
    for (const Sums& s : sums) {
      k.error += s.error[t];
      k.rtn += s.rtn[t];
      k.output += s.output[t];
    }
  }
  return out;
}

}  // namespace statera
