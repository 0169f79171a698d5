// See fused.h. Rows are independent forward; the weight's gradient is summed over fixed chunks of rows, so threads do not change it.
#include "nn/fused.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRows = 256;  // of a chunk

int64_t chunks_of(int64_t rows) { return (rows + kRows - 1) / kRows; }

// f(chunk, first row, end)
template <class F>
void over_chunks(int64_t rows, F&& f) {
  parallel_for(chunks_of(rows), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) f(c, c * kRows, std::min(rows, (c + 1) * kRows));
  });
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& w_in, double eps) {
    const at::Tensor x = x_in.contiguous(), w = w_in.contiguous();
    const int64_t C = x.size(-1), R = x.numel() / C;
    at::Tensor y = at::empty_like(x), r = at::empty({R}, x.options());
    const float *xp = x.const_data_ptr<float>(), *wp = w.const_data_ptr<float>();
    float *yp = y.mutable_data_ptr<float>(), *rp = r.mutable_data_ptr<float>();
    over_chunks(R, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* row = xp + i * C;
        float sum[8] = {};
        int64_t c = 0;
        for (; c + 8 <= C; c += 8) {
          for (int64_t j = 0; j < 8; ++j) sum[j] += row[c + j] * row[c + j];
        }
        for (; c < C; ++c) sum[0] += row[c] * row[c];
        float total = 0;
        for (float s : sum) total += s;
        const float k = rp[i] = 1 / std::sqrt(total / static_cast<float>(C) + static_cast<float>(eps));
        for (c = 0; c < C; ++c) yp[i * C + c] = row[c] * k * wp[c];
      }
    });
    ctx->save_for_backward({x, w, r});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &w = saved[1], &r = saved[2], g = grads[0].contiguous();
    const int64_t C = x.size(-1), R = x.numel() / C, chunks = chunks_of(R);
    at::Tensor dx = at::empty_like(x), parts = at::zeros({chunks, C}, x.options());
    const float *xp = x.const_data_ptr<float>(), *wp = w.const_data_ptr<float>(), *rp = r.const_data_ptr<float>(), *gp = g.const_data_ptr<float>();
    float *dp = dx.mutable_data_ptr<float>(), *pp = parts.mutable_data_ptr<float>();
    over_chunks(R, [&](int64_t chunk, int64_t begin, int64_t end) {
      float* dw = pp + chunk * C;
      for (int64_t i = begin; i < end; ++i) {
        const float *row = xp + i * C, *grad = gp + i * C, k = rp[i];
        float sum[8] = {};
        int64_t c = 0;
        for (; c + 8 <= C; c += 8) {
          for (int64_t j = 0; j < 8; ++j) sum[j] += grad[c + j] * wp[c + j] * row[c + j];
        }
        for (; c < C; ++c) sum[0] += grad[c] * wp[c] * row[c];
        float total = 0;
        for (float s : sum) total += s;
        const float along = total * k * k / static_cast<float>(C);
        for (c = 0; c < C; ++c) {
          dp[i * C + c] = k * (grad[c] * wp[c] - row[c] * along);
          dw[c] += grad[c] * row[c] * k;
        }
      }
    });
    return {dx, chunks == 1 ? parts.reshape({C}) : parts.sum(0), at::Tensor()};
  }
};

// sign 1: forward; -1: the transposed rotation, which is the gradient's.
template <bool kBack>
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t T = x.size(0), N = x.size(1), d = x.size(2), half = d / 2;
  at::Tensor y = at::empty({T, N, d}, x.options());
  const float *xp = x.const_data_ptr<float>(), *cp = cos.const_data_ptr<float>(), *sp = sin.const_data_ptr<float>();
  float* yp = y.mutable_data_ptr<float>();
  const int64_t row = x.stride(0), head = x.stride(1);
  over_chunks(T, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float *c = cp + t * d, *s = sp + t * d;
      for (int64_t n = 0; n < N; ++n) {
        const float *a = xp + t * row + n * head, *b = a + half;
        float *u = yp + (t * N + n) * d, *v = u + half;
        for (int64_t j = 0; j < half; ++j) {
          if constexpr (kBack) {
            u[j] = a[j] * c[j] + b[j] * s[half + j];
            v[j] = b[j] * c[half + j] - a[j] * s[j];
          } else {
            u[j] = a[j] * c[j] - b[j] * s[j];
            v[j] = b[j] * c[half + j] + a[j] * s[half + j];
          }
        }
      }
    }
  });
  return y;
}

struct RopeFunction : torch::autograd::Function<RopeFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos_in, const at::Tensor& sin_in) {
    const at::Tensor cos = cos_in.contiguous(), sin = sin_in.contiguous();
    ctx->save_for_backward({cos, sin});
    return rotate<false>(x.stride(2) == 1 ? x : x.contiguous(), cos, sin);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& g = grads[0];
    return {rotate<true>(g.stride(2) == 1 ? g : g.contiguous(), saved[0], saved[1]), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool trains_in_fp32(const at::Tensor& x, const at::Tensor& other) {
  return at::GradMode::is_enabled() && (x.requires_grad() || other.requires_grad()) && x.scalar_type() == at::kFloat && other.scalar_type() == at::kFloat;
}

at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& w, double eps) { return RmsNormFunction::apply(x, w, eps); }

at::Tensor fused_rope(const at::Tensor& x, const at::Tensor& cos_TR, const at::Tensor& sin_TR) {
  check(x.dim() == 3 && cos_TR.size(1) == x.size(2) && cos_TR.size(0) == x.size(0), "fused_rope: shapes");
  return RopeFunction::apply(x, cos_TR, sin_TR);
}

}  // namespace statera
