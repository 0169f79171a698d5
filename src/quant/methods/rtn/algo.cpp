// Rows of K weights: widen to fp32, range of each group, scale and zero point in the weight's own precision, codes.
// Precision follows compressed-tensors: every quotient and sum is rounded to the weight's dtype before the next operation.
// The inner loops are kernels/rounding.
#include "quant/methods/rtn/algo.h"

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/rounding/rounding.h"

namespace statera {
namespace {

namespace rounding = kernels::rounding;
using rounding::Range;

struct Sums : rounding::Sums {
  int64_t nonfinite = 0;
};

template <class V>
struct GroupScale {
  V scale{};
  int zero = 0;
};

// Scale and zero point of a group; all arithmetic in V.
template <class V>
GroupScale<V> scale_of(const Range& r, const QSpec& spec) {
  GroupScale<V> out;
  const int qmin = spec.qmin(), qmax = spec.qmax();
  const V low = static_cast<V>(r.low), high = static_cast<V>(r.high);
  if (spec.symmetric) {
    out.scale = static_cast<V>(std::max(-r.low, r.high) / (static_cast<float>(qmax - qmin) / 2));
  } else {
    V span = static_cast<V>(static_cast<float>(high) - static_cast<float>(low));
    out.scale = static_cast<V>(static_cast<float>(span) / static_cast<float>(qmax - qmin));
    V quotient = static_cast<V>(static_cast<float>(low) / static_cast<float>(out.scale));
    float zero = static_cast<float>(static_cast<V>(static_cast<float>(qmin) - static_cast<float>(quotient)));
    // An all-zero group divides 0 by 0: the reference's cast makes that 0.
    if (!std::isnan(zero))
      out.zero = static_cast<int>(std::nearbyint(std::clamp(zero, static_cast<float>(qmin), static_cast<float>(qmax))));
  }
  if (static_cast<float>(out.scale) == 0.0f) out.scale = static_cast<V>(static_cast<float>(std::numeric_limits<V>::epsilon()));
  return out;
}

// A group's own range, as rtn() has it with own_range.
template <class V>
GroupScale<V> own_scale_of(const Range& r, const QSpec& spec) {
  const int steps = spec.qmax() - spec.qmin();
  const V low = static_cast<V>(r.low), span = static_cast<V>(static_cast<float>(static_cast<V>(r.high)) - static_cast<float>(low));
  const float least = static_cast<float>(static_cast<V>(static_cast<float>(kLeastOwnRange)));
  GroupScale<V> out;
  out.scale = static_cast<V>(std::max(static_cast<float>(span), least) / static_cast<float>(steps));
  const float quotient = static_cast<float>(static_cast<V>(r.low / static_cast<float>(out.scale)));
  if (!std::isnan(quotient)) out.zero = static_cast<int>(std::clamp(-std::nearbyint(quotient), 0.0f, static_cast<float>(steps))) + spec.qmin();
  return out;
}

// V: the type of the weights and scales, `type` to the kernels.
template <class V>
void quantize_row(const rounding::Table& t, rounding::Type type, const V* w, int64_t K, const QSpec& spec, float* wide, int8_t* q, V* scale, int8_t* zero,
                  Sums& sums) {
  t.widen(w, type, K, wide);
  const int64_t G = spec.groups(K), width = spec.group <= 0 ? K : spec.group;
  const bool own = spec.own_range && !spec.symmetric;
  const auto mode = spec.symmetric ? rounding::Mode::symmetric : own ? rounding::Mode::before_zero : rounding::Mode::with_zero;
  for (int64_t g = 0; g < G; ++g) {
    const int64_t begin = g * width, count = std::min(width, K - begin);
    const Range r = t.range(wide + begin, count, own ? wide[begin] : 0.0f);
    const auto s = own ? own_scale_of<V>(r, spec) : scale_of<V>(r, spec);
    const float step = static_cast<float>(s.scale);
    scale[g] = s.scale;
    if (zero) zero[g] = static_cast<int8_t>(s.zero);
    if (!r.finite || !std::isfinite(step)) {
      ++sums.nonfinite;
      std::fill(q + begin, q + begin + count, int8_t{0});
      continue;
    }
    const rounding::Grid grid{type, mode, step, static_cast<float>(s.zero), static_cast<float>(spec.qmin()), static_cast<float>(spec.qmax())};
    t.codes(grid, wide + begin, count, q + begin, sums);
  }
}

template <class V>
RtnResult quantize(const at::Tensor& W_NK, const QSpec& spec, rounding::Type type) {
  const int64_t N = W_NK.size(0), K = W_NK.size(1), G = spec.groups(K);
  RtnResult out;
  out.q.spec = spec;
  out.q.q = at::empty({N, K}, at::kChar);
  out.q.scale = at::empty({N, G}, W_NK.scalar_type());
  if (!spec.symmetric) out.q.zero = at::empty({N, G}, at::kChar);
  const auto* w = static_cast<const V*>(W_NK.const_data_ptr());
  auto* q = out.q.q.mutable_data_ptr<int8_t>();
  auto* scale = static_cast<V*>(out.q.scale.mutable_data_ptr());
  auto* zero = spec.symmetric ? nullptr : out.q.zero.mutable_data_ptr<int8_t>();
  const rounding::Table& t = rounding::table();
  std::vector<Sums> rows(static_cast<size_t>(N));
  parallel_for(N, std::max<int64_t>(1, 65536 / std::max<int64_t>(K, 1)), [&](int64_t begin, int64_t end) {
    std::vector<float> wide(static_cast<size_t>(K));
    for (int64_t n = begin; n < end; ++n) {
      quantize_row(t, type, w + n * K, K, spec, wide.data(), q + n * K, scale + n * G, zero ? zero + n * G : nullptr, rows[static_cast<size_t>(n)]);
    }
  });
  for (const Sums& row : rows) {
    out.error += row.error;
    out.weight += row.weight;
    out.nonfinite += row.nonfinite;
  }
  return out;
}

}  // namespace

RtnResult rtn_rows(const at::Tensor& W_NK, const QSpec& spec) {
  check(W_NK.dim() == 2 && W_NK.is_contiguous() && W_NK.is_cpu(), "rtn_rows takes a contiguous matrix on the CPU");
  check_spec(spec, W_NK.size(1));
  switch (W_NK.scalar_type()) {
    case at::kFloat:
      return quantize<float>(W_NK, spec, rounding::Type::f32);
    case at::kBFloat16:
      return quantize<c10::BFloat16>(W_NK, spec, rounding::Type::bf16);
    case at::kHalf:
      return quantize<c10::Half>(W_NK, spec, rounding::Type::f16);
    default:
      throw Error(ErrorKind::unsupported,
                  std::string("weights of dtype ") + c10::toString(W_NK.scalar_type()) + " cannot be rounded (f32, bf16 or f16 can)");
  }
}

}  // namespace statera
