// Rows of K weights: widen to fp32, range of each group, scale and zero point in the weight's own precision, codes.
// Precision follows compressed-tensors: every quotient and sum is rounded to the weight's dtype before the next operation.
// Inner loops run over kLanes independent lanes, so that they vectorise and their sums have one order.
#include "quant/methods/rtn/algo.h"

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int kLanes = 16;
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds |v| < 2^22 half to even, the integer in the low bits

struct Sums {
  double error = 0, weight = 0;
  int64_t nonfinite = 0;
};

// widen: stored bits -> fp32. round: fp32 -> nearest value of the dtype, for magnitudes that decide a code (f16 subnormals need not
// be exact there: they are far below a half).
struct AsF32 {
  using Stored = float;
  using Value = float;
  static float widen(float w) { return w; }
  static float round(float v) { return v; }
};

struct AsBf16 {
  using Stored = uint16_t;
  using Value = c10::BFloat16;
  static float widen(uint16_t w) { return std::bit_cast<float>(static_cast<uint32_t>(w) << 16); }
  static float round(float v) {
    uint32_t b = std::bit_cast<uint32_t>(v);
    return std::bit_cast<float>((b + 0x7FFFu + ((b >> 16) & 1u)) & 0xFFFF0000u);
  }
};

struct AsF16 {
  using Stored = uint16_t;
  using Value = c10::Half;
  static float widen(uint16_t w) {
    uint32_t h = w;
    uint32_t special = (h & 0x7C00u) == 0x7C00u ? 0x7F800000u : 0u;  // infinities and NaNs keep their exponent
    float magnitude = std::bit_cast<float>((h & 0x7FFFu) << 13) * 0x1p112f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | special | ((h & 0x8000u) << 16));
  }
  static float round(float v) {
    uint32_t b = std::bit_cast<uint32_t>(v);
    return std::bit_cast<float>((b + 0xFFFu + ((b >> 13) & 1u)) & 0xFFFFE000u);
  }
};

struct Range {
  float low = 0, high = 0;
  bool finite = true;
};

// Compiler vectors of the narrowest x86 width: with plain arrays the ternaries stay scalar, wider ones fall apart.
using Quad [[gnu::vector_size(16)]] = float;
constexpr int kQuads = kLanes / 4;

// Widened to hold `start`: 0, or the first weight where the range is to be the weights' own.
Range range_of(const float* x, int64_t count, float start) {
  Quad low[kQuads], high[kQuads], poison[kQuads] = {};
  for (int l = 0; l < kQuads; ++l) low[l] = high[l] = Quad{start, start, start, start};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kQuads; ++l) {
      Quad v;
      std::memcpy(&v, x + i + 4 * l, sizeof v);
      low[l] = v < low[l] ? v : low[l];
      high[l] = v > high[l] ? v : high[l];
      poison[l] += v * 0.0f;  // NaN as soon as one weight is NaN or infinite
    }
  }
  Range r{start, start, std::isfinite(start)};
  for (; i < count; ++i) {
    r.low = std::min(r.low, x[i]);
    r.high = std::max(r.high, x[i]);
    r.finite &= std::isfinite(x[i]);
  }
  for (int l = 0; l < kLanes; ++l) {
    r.low = std::min(r.low, low[l / 4][l % 4]);
    r.high = std::max(r.high, high[l / 4][l % 4]);
    r.finite &= poison[l / 4][l % 4] == 0.0f;
  }
  return r;
}

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

// How codes are found: without zero point; rounded with it; rounded before it is added.
enum class Mode { symmetric, with_zero, before_zero };

template <class As, Mode kMode>
inline float code_of(float x, float scale, float zero, float qmin, float qmax) {
  float v = As::round(x / scale);
  if constexpr (kMode == Mode::with_zero) v = As::round(v + zero);
  if constexpr (kMode == Mode::before_zero) {  // bounds are whole numbers, so that rounding may follow clamping
    v = v < qmin - zero ? qmin - zero : v;
    v = v > qmax - zero ? qmax - zero : v;
    return ((v + kRounder) - kRounder) + zero;
  }
  v = v < qmin ? qmin : v;
  v = v > qmax ? qmax : v;
  return (v + kRounder) - kRounder;
}

template <class As, Mode kMode>
void codes_of(const float* x, int64_t count, float scale, float zero, const QSpec& spec, int8_t* q, Sums& sums) {
  const float qmin = static_cast<float>(spec.qmin()), qmax = static_cast<float>(spec.qmax());
  float error[kLanes] = {}, weight[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      float w = x[i + l];
      float c = code_of<As, kMode>(w, scale, zero, qmin, qmax);
      q[i + l] = static_cast<int8_t>(static_cast<int32_t>(c));
      float d = (c - zero) * scale - w;
      error[l] += d * d;
      weight[l] += w * w;
    }
  }
  for (; i < count; ++i) {
    float c = code_of<As, kMode>(x[i], scale, zero, qmin, qmax);
    q[i] = static_cast<int8_t>(static_cast<int32_t>(c));
    float d = (c - zero) * scale - x[i];
    error[0] += d * d;
    weight[0] += x[i] * x[i];
  }
  for (int l = 0; l < kLanes; ++l) {
    sums.error += error[l];
    sums.weight += weight[l];
  }
}

template <class As>
void quantize_row(const typename As::Stored* w, int64_t K, const QSpec& spec, float* wide, int8_t* q, typename As::Value* scale,
                  int8_t* zero, Sums& sums) {
  for (int64_t k = 0; k < K; ++k) wide[k] = As::widen(w[k]);
  const int64_t G = spec.groups(K), width = spec.group <= 0 ? K : spec.group;
  const bool own = spec.own_range && !spec.symmetric;
  for (int64_t g = 0; g < G; ++g) {
    const int64_t begin = g * width, count = std::min(width, K - begin);
    const Range r = range_of(wide + begin, count, own ? wide[begin] : 0.0f);
    const auto s = own ? own_scale_of<typename As::Value>(r, spec) : scale_of<typename As::Value>(r, spec);
    const float step = static_cast<float>(s.scale);
    scale[g] = s.scale;
    if (zero) zero[g] = static_cast<int8_t>(s.zero);
    if (!r.finite || !std::isfinite(step)) {
      ++sums.nonfinite;
      std::fill(q + begin, q + begin + count, int8_t{0});
    } else if (spec.symmetric) {
      codes_of<As, Mode::symmetric>(wide + begin, count, step, 0.0f, spec, q + begin, sums);
    } else if (own) {
      codes_of<As, Mode::before_zero>(wide + begin, count, step, static_cast<float>(s.zero), spec, q + begin, sums);
    } else {
      codes_of<As, Mode::with_zero>(wide + begin, count, step, static_cast<float>(s.zero), spec, q + begin, sums);
    }
  }
}

template <class As>
RtnResult quantize(const at::Tensor& W_NK, const QSpec& spec) {
  const int64_t N = W_NK.size(0), K = W_NK.size(1), G = spec.groups(K);
  RtnResult out;
  out.q.spec = spec;
  out.q.q = at::empty({N, K}, at::kChar);
  out.q.scale = at::empty({N, G}, W_NK.scalar_type());
  if (!spec.symmetric) out.q.zero = at::empty({N, G}, at::kChar);
  const auto* w = static_cast<const typename As::Stored*>(W_NK.const_data_ptr());
  auto* q = out.q.q.mutable_data_ptr<int8_t>();
  auto* scale = static_cast<typename As::Value*>(out.q.scale.mutable_data_ptr());
  auto* zero = spec.symmetric ? nullptr : out.q.zero.mutable_data_ptr<int8_t>();
  std::vector<Sums> rows(static_cast<size_t>(N));
  parallel_for(N, std::max<int64_t>(1, 65536 / std::max<int64_t>(K, 1)), [&](int64_t begin, int64_t end) {
    std::vector<float> wide(static_cast<size_t>(K));
    for (int64_t n = begin; n < end; ++n) {
      quantize_row<As>(w + n * K, K, spec, wide.data(), q + n * K, scale + n * G, zero ? zero + n * G : nullptr,
                       rows[static_cast<size_t>(n)]);
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
      return quantize<AsF32>(W_NK, spec);
    case at::kBFloat16:
      return quantize<AsBf16>(W_NK, spec);
    case at::kHalf:
      return quantize<AsF16>(W_NK, spec);
    default:
      throw Error(ErrorKind::unsupported,
                  std::string("weights of dtype ") + c10::toString(W_NK.scalar_type()) + " cannot be rounded (f32, bf16 or f16 can)");
  }
}

}  // namespace statera
