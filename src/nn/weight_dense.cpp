// Dense: a floating matrix as it is stored. Mixed precision (fp32 rows, 16-bit weights) streams the stored weights through a kernel
// instead of converting them; autograd goes through ATen.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include "base/error.h"
#include "nn/weight.h"

namespace statera {
namespace {

class Dense : public WeightRep {
 public:
  explicit Dense(at::Tensor W) : W_(std::move(W)) {}
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override {
    at::Tensor x = act ? fake_quantize(x_TK, *act) : x_TK;
    return at::linear(x, x.scalar_type() == W_.scalar_type() ? W_ : W_.to(x.scalar_type()));
  }
  at::Tensor dense() const override { return W_; }
  std::optional<QTensor> unpack() const override { return std::nullopt; }
  int64_t bytes() const override { return W_.numel() * static_cast<int64_t>(W_.element_size()); }

 private:
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
