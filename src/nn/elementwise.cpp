// See elementwise.h. Rows are split over threads where there are enough elements to pay for waking them.
#include "nn/elementwise.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "nn/describe.h"
#include "nn/elementwise_kernel.h"

namespace statera {
namespace {

namespace ew = kernels::elementwise;

constexpr int64_t kGrain = int64_t{1} << 14;  // elements of a piece

// Whether nobody but this handle sees the memory.
bool sole(const at::Tensor& x) { return x.use_count() == 1 && x.storage().use_count() == 1 && x.is_contiguous(); }

bool half(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf; }

// f(begin, end) over rows of n elements.
template <class F>
void over_rows(int64_t rows, int64_t n, F&& f) {
  parallel_for(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(n, 1)), f);
}

at::Tensor activate_in_aten(Activation kind, const at::Tensor& x) {
  switch (kind) {
    case Activation::silu: return at::silu(x);
    case Activation::gelu: return at::gelu(x);
    case Activation::gelu_tanh: return at::gelu(x, "tanh");
    case Activation::quick_gelu: return x * at::sigmoid(x * 1.702);
    case Activation::relu: return at::relu(x);
  }
  throw Bug("unnamed Activation");
}

// x as rows of its last dimension with one distance from row to row; contiguous where it is not so already.
at::Tensor as_rows(const at::Tensor& x) {
  if (x.dim() == 2 && x.stride(1) == 1) return x;
  return x.contiguous().reshape({-1, x.dim() > 0 ? x.size(-1) : 1});
}

at::Tensor activated(Activation kind, at::Tensor x_in, const at::Tensor* times_in) {
  const bool reuse = sole(x_in);
  const at::Tensor x = as_rows(x_in), times = times_in ? as_rows(*times_in) : at::Tensor();
  const int64_t rows = x.size(0), n = x.size(1);
  at::Tensor y = reuse ? x_in : at::empty(x_in.sizes(), x_in.options());
  const float *from = x.const_data_ptr<float>(), *by = times_in ? times.const_data_ptr<float>() : nullptr;
  float* to = y.mutable_data_ptr<float>();
  const int64_t ldx = x.stride(0), ldt = times_in ? times.stride(0) : 0;
  over_rows(rows, n, [&](int64_t begin, int64_t end) {
    ew::table().activate(act_of(kind), from + begin * ldx, ldx, by ? by + begin * ldt : nullptr, ldt, end - begin, n, to + begin * n, n);
  });
  return y;
}

}  // namespace

bool is_vector(const at::Tensor& x) { return (x.scalar_type() == at::kFloat || half(x)) && !tracked(x) && x.is_contiguous(); }

ew::Vector vector_of(const at::Tensor& x) {
  const ew::Type type = x.scalar_type() == at::kFloat ? ew::Type::f32 : x.scalar_type() == at::kHalf ? ew::Type::f16 : ew::Type::bf16;
  return {x.const_data_ptr(), type};
}

ew::Act act_of(Activation kind) {
  switch (kind) {
    case Activation::silu: return ew::Act::silu;
    case Activation::gelu: return ew::Act::gelu;
    case Activation::gelu_tanh: return ew::Act::gelu_tanh;
    case Activation::quick_gelu: return ew::Act::quick_gelu;
    case Activation::relu: return ew::Act::relu;
  }
  throw Bug("unnamed Activation");
}

bool tracked(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }
bool kernel_reads(const at::Tensor& x) { return x.scalar_type() == at::kFloat && !tracked(x); }

at::Tensor sum(const at::Tensor& a, at::Tensor b) {
  if (!kernel_reads(a) || !kernel_reads(b) || !a.is_contiguous() || !b.is_contiguous() || a.sizes() != b.sizes()) return a + b;
  at::Tensor y = sole(b) ? b : at::empty_like(b);
  const float *from = a.const_data_ptr<float>(), *other = b.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  parallel_for(a.numel(), kGrain, [&](int64_t begin, int64_t end) { ew::table().add(from + begin, other + begin, end - begin, to + begin); });
  return y;
}

at::Tensor add_bias(at::Tensor y, const at::Tensor& bias) {
  if (!kernel_reads(y) || !is_vector(bias) || !sole(y)) return y + bias.to(y.scalar_type());
  const int64_t n = y.size(-1);
  float* to = y.mutable_data_ptr<float>();
  over_rows(y.numel() / n, n, [&](int64_t begin, int64_t end) { ew::table().add_bias(to + begin * n, n, end - begin, n, vector_of(bias)); });
  return y;
}

at::Tensor activate(Activation kind, at::Tensor x) {
  const profile::Span span("activation", [&] { return describe_elementwise(x); });
  if (!kernel_reads(x) || x.numel() == 0) return activate_in_aten(kind, x);
  return activated(kind, std::move(x), nullptr);
}

at::Tensor activate_times(Activation kind, at::Tensor x, const at::Tensor& times) {
  const profile::Span span("activation", [&] { return describe_elementwise(x); });
  if (!kernel_reads(x) || !kernel_reads(times) || x.numel() == 0) return activate_in_aten(kind, x) * times;
  check(x.sizes() == times.sizes(), "activate_times: shapes");
  return activated(kind, std::move(x), &times);
}

at::Tensor kernel_rms_norm(const at::Tensor& x_in, const at::Tensor& w_in, double eps) {
  const at::Tensor x = as_rows(x_in), w = is_vector(w_in) ? w_in : w_in.to(at::kFloat).contiguous();
  at::Tensor y = at::empty(x_in.sizes(), x_in.options());
  const int64_t n = x.size(1), ldx = x.stride(0);
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  over_rows(x.size(0), n, [&](int64_t begin, int64_t end) {
    ew::table().rms_norm(from + begin * ldx, ldx, end - begin, n, vector_of(w), static_cast<float>(eps), to + begin * n);
  });
  return y;
}

at::Tensor kernel_layer_norm(const at::Tensor& x_in, const at::Tensor& w_in, const at::Tensor& b_in, double eps) {
  const at::Tensor x = as_rows(x_in), w = is_vector(w_in) ? w_in : w_in.to(at::kFloat).contiguous(), b = is_vector(b_in) ? b_in : b_in.to(at::kFloat).contiguous();
  at::Tensor y = at::empty(x_in.sizes(), x_in.options());
  const int64_t n = x.size(1), ldx = x.stride(0);
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  over_rows(x.size(0), n, [&](int64_t begin, int64_t end) {
    ew::table().layer_norm(from + begin * ldx, ldx, end - begin, n, vector_of(w), vector_of(b), static_cast<float>(eps), to + begin * n);
  });
  return y;
}

at::Tensor kernel_rope(const at::Tensor& x_in, const at::Tensor& cos_in, const at::Tensor& sin_in) {
  const at::Tensor x = x_in.stride(2) == 1 ? x_in : x_in.contiguous(), cos = cos_in.contiguous(), sin = sin_in.contiguous();
  const int64_t T = x.size(0), N = x.size(1), d = x.size(2), r = cos.size(1), row = x.stride(0), head = x.stride(1);
  at::Tensor y = at::empty({T, N, d}, x.options());
  const float *from = x.const_data_ptr<float>(), *c = cos.const_data_ptr<float>(), *s = sin.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  over_rows(T, N * d, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) ew::table().rope(from + t * row, head, N, d, r, c + t * r, s + t * r, to + t * N * d);
  });
  return y;
}

}  // namespace statera
