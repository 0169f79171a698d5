// Dense: a floating matrix as it is stored. fp32 rows stream the stored weights, whatever their type, through a kernel on our own threads
// instead of converting them (LibTorch has one thread here, and its products are no faster); autograd and 16-bit rows go through ATen.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/hgemm/hgemm.h"
#include "nn/weight.h"

namespace statera {
namespace {

namespace hg = kernels::hgemm;

hg::Type kernel_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16: return hg::Type::bf16;
    case at::kHalf: return hg::Type::f16;
    case at::kFloat: return hg::Type::f32;
    default: throw Bug("weight dtype without a kernel");
  }
}

class Dense : public WeightRep {
 public:
  explicit Dense(at::Tensor W) : W_(std::move(W)) {}
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override {
    at::Tensor x = act ? fake_quantize(x_TK, *act) : x_TK;
    const bool same = x.scalar_type() == W_.scalar_type();
    const bool grads = at::GradMode::is_enabled() && (x.requires_grad() || W_.requires_grad());
    const bool kernel = x.scalar_type() != at::kDouble && !grads && W_.scalar_type() != at::kDouble;
    // 16-bit activations are multiplied and summed in fp32 and rounded once; ATen would do so on one thread.
    if (kernel && W_.stride(1) == 1) return stream(x.to(at::kFloat).contiguous()).to(x.scalar_type());
    if (kernel && W_.stride(0) == 1) return stream_turned(x.to(at::kFloat).contiguous()).to(x.scalar_type());
    return at::linear(x, same ? W_ : W_.to(x.scalar_type()));
  }
  at::Tensor dense() const override { return W_; }
  std::optional<QTensor> unpack() const override { return std::nullopt; }
  int64_t bytes() const override { return W_.numel() * static_cast<int64_t>(W_.element_size()); }

 private:
  at::Tensor stream(const at::Tensor& x) const {
    const int64_t T = x.size(0), K = W_.size(1), N = W_.size(0);
    at::Tensor y = at::empty({T, N}, x.options());
    if (T == 0) return y;
    const float* from = x.const_data_ptr<float>();
    float* to = y.mutable_data_ptr<float>();
    const hg::Matrix w{.data = W_.const_data_ptr(), .type = kernel_type(W_.scalar_type()), .n = N, .k = K, .ldw = W_.stride(0)};
    // Of many rows every piece makes a copy for itself: two pieces a thread then, where else more would even out the threads.
    const int64_t pieces = T > hg::kMaxDecodeRows ? 2 * num_threads() : N;
    parallel_for(N, std::max<int64_t>(hg::kRowBlock, N / pieces / hg::kRowBlock * hg::kRowBlock),
                 [&](int64_t begin, int64_t end) { hg::matmul(from, K, T, w, nullptr, to, N, begin, end); });
    return y;
  }
  // A matrix that lies with inputs as rows (fused experts): some outputs at a time are turned over into a buffer that stays in cache.
  at::Tensor stream_turned(const at::Tensor& x) const {
    constexpr int64_t kOutputs = 4 * hg::kRowBlock;
    const int64_t T = x.size(0), K = W_.size(1), N = W_.size(0);
    at::Tensor y = at::empty({T, N}, x.options());
    if (T == 0) return y;
    const float* from = x.const_data_ptr<float>();
    float* to = y.mutable_data_ptr<float>();
    parallel_for(N, kOutputs, [&](int64_t begin, int64_t end) {
      std::vector<std::byte> rows(static_cast<size_t>(kOutputs * K) * W_.element_size());
      for (int64_t n = begin; n < end; n += kOutputs) {
        const int64_t count = std::min(kOutputs, end - n);
        if (W_.element_size() == 2) {
          turn(static_cast<const uint16_t*>(W_.const_data_ptr()) + n, count, reinterpret_cast<uint16_t*>(rows.data()));
        } else {
          turn(static_cast<const uint32_t*>(W_.const_data_ptr()) + n, count, reinterpret_cast<uint32_t*>(rows.data()));
        }
        const hg::Matrix w{.data = rows.data(), .type = kernel_type(W_.scalar_type()), .n = count, .k = K, .ldw = K};
        hg::matmul(from, K, T, w, nullptr, to + n, N, 0, count);
      }
    });
    return y;
  }
  template <class E>
  void turn(const E* from, int64_t count, E* to) const {
    const int64_t K = W_.size(1), ld = W_.stride(1);
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t n = 0; n < count; ++n) to[n * K + k] = from[k * ld + n];
    }
  }
  at::Tensor W_;
};

class Rounded : public WeightRep {
 public:
  explicit Rounded(QTensor q) : q_(std::move(q)), W_(q_.dequantize()) {}
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override {
    at::Tensor x = act ? fake_quantize(x_TK, *act) : x_TK;
    return at::linear(x, W_.to(x.scalar_type()));
  }
  at::Tensor dense() const override { return W_; }
  std::optional<QTensor> unpack() const override { return q_; }
  int64_t bytes() const override { return q_.bytes() + W_.numel() * 4; }

 private:
  QTensor q_;
  at::Tensor W_;
};

}  // namespace

Weight make_dense(at::Tensor W_NK) {
  check(W_NK.dim() == 2 && W_NK.is_floating_point(), "dense weights are floating matrices");
  return std::make_shared<Dense>(std::move(W_NK));
}

Weight make_rounded(QTensor q) { return std::make_shared<Rounded>(std::move(q)); }

}  // namespace statera
