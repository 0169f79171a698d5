// Attention per sequence: ATen's blocked kernel where its masks fit, an explicit mask otherwise, plain products for single queries.
#include "nn/attend.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <cmath>

#include "base/error.h"
#include "nn/kv_cache.h"

namespace statera {
namespace {

// Boolean mask [Tq, Tk], true = visible. Query i of the sequence stands at position Tk - Tq + i.
at::Tensor visible(int64_t Tq, int64_t Tk, int64_t window, const at::TensorOptions& options) {
  at::Tensor i = at::arange(Tk - Tq, Tk, options.dtype(at::kLong)).unsqueeze(1);
  at::Tensor j = at::arange(0, Tk, options.dtype(at::kLong)).unsqueeze(0);
  at::Tensor mask = j <= i;
  if (window > 0) mask = mask & (j > i - window);
  return mask;
}

// One query row over all keys: K groups of N/K queries share their keys, so this is K small products.
at::Tensor single(const at::Tensor& q_1Nd, const at::Tensor& k_TKd, const at::Tensor& v_TKd, double scale) {
  const int64_t N = q_1Nd.size(1), d = q_1Nd.size(2), K = k_TKd.size(1);
  at::Tensor q = q_1Nd.reshape({K, N / K, d});
  at::Tensor scores = at::matmul(q, k_TKd.permute({1, 2, 0})) * scale;  // [K, N/K, T]
  at::Tensor prob = at::softmax(scores, -1, at::kFloat).to(q.scalar_type());
  return at::matmul(prob, v_TKd.permute({1, 0, 2})).reshape({1, N * v_TKd.size(2)});
}

at::Tensor one_sequence_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendSite& site, double scale) {
  const int64_t Tq = q.size(0), N = q.size(1), Tk = k.size(0), K = k.size(1);
  if (Tq == 1 && site.causal) {
    int64_t from = site.window > 0 ? std::max<int64_t>(0, Tk - site.window) : 0;
    return single(q, k.slice(0, from, Tk), v.slice(0, from, Tk), scale);
  }
  auto heads_first = [](const at::Tensor& x) { return x.permute({1, 0, 2}).unsqueeze(0); };
  auto repeat = [&](const at::Tensor& x) {
    if (K == N) return heads_first(x);
    return heads_first(x).unsqueeze(2).expand({1, K, N / K, x.size(0), x.size(2)}).reshape({1, N, x.size(0), x.size(2)});
  };
  at::Tensor qh = heads_first(q), kh = repeat(k), vh = repeat(v);
  at::Tensor out;
  bool windowed = site.window > 0 && Tk > site.window;
  if (!site.causal || (Tq == Tk && !windowed)) {
    out = at::scaled_dot_product_attention(qh, kh, vh, {}, 0.0, site.causal, scale);
  } else {
    at::Tensor mask = visible(Tq, Tk, windowed ? site.window : 0, q.options()).unsqueeze(0).unsqueeze(0);
    out = at::scaled_dot_product_attention(qh, kh, vh, mask, 0.0, false, scale);
  }
  return out.squeeze(0).permute({1, 0, 2}).reshape({Tq, -1});
}

}  // namespace

at::Tensor attend(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v, const AttendSite& site, const Pass& pass,
                  const SequenceBounds* bounds) {
  const SequenceBounds& b = bounds ? *bounds : pass.bounds;
  check(b.size() >= 2 && b.back() == q_in.size(0), "attend: sequence bounds do not cover the rows");
  check(q_in.size(1) % k_in.size(1) == 0, "attend: query heads are no multiple of key heads");
  at::Tensor q = q_in, k = k_in;
  if (site.qk_rotation.defined()) {
    at::Tensor R = site.qk_rotation.to(q.scalar_type());
    q = at::matmul(q, R);
    k = at::matmul(k, R);
  }
  const double scale = site.scale > 0 ? site.scale : 1 / std::sqrt(static_cast<double>(q.size(2)));
  const bool cached = !pass.caches.empty() && !bounds;
  check(!cached || pass.caches.size() + 1 == b.size(), "attend: one cache per sequence");
  std::vector<at::Tensor> parts;
  parts.reserve(b.size() - 1);
  for (size_t s = 0; s + 1 < b.size(); ++s) {
    const int64_t begin = b[s], end = b[s + 1];
    if (begin == end) continue;
    at::Tensor qs = q.slice(0, begin, end), ks = k.slice(0, begin, end), vs = v.slice(0, begin, end);
    if (cached) std::tie(ks, vs) = pass.caches[s]->append(site.layer, ks, vs);
    parts.push_back(one_sequence_attention(qs, ks, vs, site, scale));
  }
  if (parts.empty()) return at::empty({0, q.size(1) * v.size(2)}, q.options());
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

}  // namespace statera
