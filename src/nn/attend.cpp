// Attention per sequence. Inference in fp32 runs through kernels/attn (attend_kernel.h). What is left, graphs and 16-bit activations, goes to
// ATen's blocked kernel where its masks fit, else to an explicit mask, and single queries to plain products; heads are spread over our own threads.
#include "nn/attend.h"

#include <ATen/TensorOperators.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "nn/attend_kernel.h"
#include "nn/describe.h"
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

// Heads of one sequence, all at once: q [Tq, N, d], k and v [Tk, K, d] -> [Tq, N*dv].
at::Tensor heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendSite& site, double scale, const at::Tensor& mask) {
  const int64_t Tq = q.size(0), N = q.size(1), K = k.size(1);
  if (Tq == 1 && site.causal) return single(q, k, v, scale);
  auto heads_first = [](const at::Tensor& x) { return x.permute({1, 0, 2}).unsqueeze(0); };
  auto repeat = [&](const at::Tensor& x) {
    if (K == N) return heads_first(x);
    return heads_first(x).unsqueeze(2).expand({1, K, N / K, x.size(0), x.size(2)}).reshape({1, N, x.size(0), x.size(2)});
  };
  std::optional<at::Tensor> given;
  if (mask.defined()) given = mask;
  at::Tensor out = at::scaled_dot_product_attention(heads_first(q), repeat(k), repeat(v), given, 0.0, site.causal && !given, scale);
  return out.squeeze(0).permute({1, 0, 2}).reshape({Tq, -1});
}

at::Tensor one_sequence_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const AttendSite& site, double scale) {
  const int64_t Tq = q.size(0), N = q.size(1), K = k.size(1), d = q.size(2);
  at::Tensor mask;
  const bool windowed = site.causal && site.window > 0 && k.size(0) > site.window;
  if (site.causal && Tq == 1 && windowed) {
    k = k.slice(0, k.size(0) - site.window);
    v = v.slice(0, v.size(0) - site.window);
  } else if (site.causal && Tq > 1 && (Tq != k.size(0) || windowed)) {
    mask = visible(Tq, k.size(0), windowed ? site.window : 0, q.options()).unsqueeze(0).unsqueeze(0);
  }
  const bool grads = at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  const bool small = Tq * k.size(0) * N * d < (int64_t{1} << 17);
  if (grads || small) return heads(q, k, v, site, scale, mask);
  // Query heads over threads; the heads of one key group stay together in a decode step, where reading the keys is the work.
  const int64_t grain = Tq == 1 ? N / K : 1, dv = v.size(2);
  at::Tensor out = at::empty({Tq, N * dv}, q.options());
  at::ThreadLocalState state;
  parallel_for(N, grain, [&](int64_t begin, int64_t end) {
    at::ThreadLocalStateGuard same(state);
    for (int64_t n = begin; n < end; n += grain) {
      const int64_t group = n / (N / K);
      out.slice(1, n * dv, (n + grain) * dv).copy_(heads(q.slice(1, n, n + grain), k.slice(1, group, group + 1), v.slice(1, group, group + 1), site, scale, mask));
    }
  });
  return out;
}

// Sequences that run as one call: of the same length, or, where later keys are hidden anyway, of about the same and padded behind.
struct Group {
  std::vector<size_t> sequences;
  int64_t length = 0;
};

std::vector<Group> groups_of(const SequenceBounds& b, bool causal) {
  std::vector<size_t> order;
  for (size_t s = 0; s + 1 < b.size(); ++s) {
    if (b[s] < b[s + 1]) order.push_back(s);
  }
  auto length = [&](size_t s) { return b[s + 1] - b[s]; };
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return length(x) > length(y); });
  std::vector<Group> out;
  for (size_t s : order) {
    const bool fits = !out.empty() && (causal ? 4 * length(s) >= 3 * out.back().length : length(s) == out.back().length);
    if (!fits) out.push_back({{}, length(s)});
    out.back().sequences.push_back(s);
  }
  return out;
}

// All sequences of a training pass in a few calls: per-sequence calls cost more than their arithmetic on small models. Rows are gathered
// as an embedding is, whose backward is a plain loop over rows.
at::Tensor together(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendSite& site, const SequenceBounds& b, double scale) {
  const int64_t T = q.size(0), N = q.size(1), K = k.size(1), dv = v.size(2);
  const std::vector<Group> groups = groups_of(b, site.causal);
  std::vector<at::Tensor> parts;
  std::vector<int64_t> place(static_cast<size_t>(T));
  int64_t offset = 0;
  for (const Group& g : groups) {
    const int64_t B = static_cast<int64_t>(g.sequences.size()), L = g.length;
    std::vector<int64_t> rows;
    rows.reserve(static_cast<size_t>(B * L));
    for (size_t s : g.sequences) {
      for (int64_t t = 0; t < L; ++t) {
        const int64_t row = std::min(b[s] + t, b[s + 1] - 1);
        if (b[s] + t == row) place[static_cast<size_t>(row)] = offset + static_cast<int64_t>(rows.size());
        rows.push_back(row);
      }
    }
    const bool whole = B * L == T;  // one length only: the rows lie as they should
    const at::Tensor index = whole ? at::Tensor() : at::tensor(rows, at::kLong);
    auto take = [&](const at::Tensor& x) {
      const at::Tensor flat = x.reshape({T, -1});
      return (whole ? flat : at::embedding(flat, index)).reshape({B, L, x.size(1), x.size(2)}).permute({0, 2, 1, 3});
    };
    auto repeat = [&](const at::Tensor& x) {
      if (K == N) return x;
      return x.unsqueeze(2).expand({B, K, N / K, L, x.size(3)}).reshape({B, N, L, x.size(3)});
    };
    at::Tensor out = at::scaled_dot_product_attention(take(q), repeat(take(k)), repeat(take(v)), {}, 0.0, site.causal, scale);
    parts.push_back(out.permute({0, 2, 1, 3}).reshape({B * L, N * dv}));
    if (whole) return parts.back();
    offset += B * L;
  }
  return at::embedding(at::cat(parts, 0), at::tensor(place, at::kLong));
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
  const profile::Span span("attention", [&] { return describe_attention(q, k, v, site, b, pass, cached); });
  if (attends_in_kernels(q, k, v)) return attend_in_kernels(q, k, v, site, scale, b, cached ? pass.caches : std::vector<KvCache*>{});
  if (at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad()) && !cached && b.size() > 2) {
    int64_t longest = 0;
    for (size_t s = 0; s + 1 < b.size(); ++s) longest = std::max(longest, b[s + 1] - b[s]);
    if (!site.causal || site.window == 0 || longest <= site.window) return together(q, k, v, site, b, scale);
  }
  std::vector<at::Tensor> parts;
  parts.reserve(b.size() - 1);
  for (size_t s = 0; s + 1 < b.size(); ++s) {
    const int64_t begin = b[s], end = b[s + 1];
    if (begin == end) continue;
    at::Tensor qs = q.slice(0, begin, end), ks = k.slice(0, begin, end), vs = v.slice(0, begin, end);
    if (cached) {
      pass.caches[s]->append(site.layer, ks, vs);
      std::tie(ks, vs) = pass.caches[s]->rows(site.layer, q.scalar_type());
    }
    parts.push_back(one_sequence_attention(qs, ks, vs, site, scale));
  }
  if (parts.empty()) return at::empty({0, q.size(1) * v.size(2)}, q.options());
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

}  // namespace statera
