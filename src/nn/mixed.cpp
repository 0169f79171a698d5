// See mixed.h. Each product packs its right side once, then rows go side by side.
#include "nn/mixed.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/bgemm/bgemm.h"

namespace statera {
namespace {

namespace bg = kernels::bgemm;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bg::Matrix matrix_of(const at::Tensor& t, bool turned) { return {t.const_data_ptr<float>(), t.size(1), turned}; }

// C[m, n] = A B^T over k.
at::Tensor product(const bg::Matrix& a, const bg::Matrix& b, int64_t m, int64_t n, int64_t k, const at::TensorOptions& options) {
  at::Tensor C = at::empty({m, n}, options), packed = at::empty({bg::packed_size(n, k)}, options.dtype(at::kInt));
  float* to = C.mutable_data_ptr<float>();
  uint32_t* words = reinterpret_cast<uint32_t*>(packed.mutable_data_ptr<int32_t>());
  parallel_for(bg::panels(n), 1, [&](int64_t begin, int64_t end) { bg::pack(b, n, k, words, begin, end); });
  parallel_for(m, std::min<int64_t>(bg::kRows, std::max<int64_t>(12, m / num_threads())),
               [&](int64_t begin, int64_t end) { bg::matmul(a, begin, end, k, words, n, to, n); });
  return C;
}

struct MixedLinear : torch::autograd::Function<MixedLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& W_in) {
    const at::Tensor x = x_in.contiguous(), W = W_in.contiguous();
    ctx->save_for_backward({x, W});
    return product(matrix_of(x, false), matrix_of(W, false), x.size(0), W.size(0), x.size(1), x.options());
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &W = saved[1], g = grads[0].contiguous();
    const int64_t T = x.size(0), K = W.size(1), N = W.size(0);
    at::Tensor dx, dW;
    if (ctx->needs_input_grad(0)) dx = product(matrix_of(g, false), matrix_of(W, true), T, K, N, x.options());
    if (ctx->needs_input_grad(1)) dW = product(matrix_of(g, true), matrix_of(x, true), N, K, T, x.options());
    return {dx, dW};
  }
};

class Mixed : public WeightRep {
 public:
  explicit Mixed(at::Tensor W) : W_(std::move(W)) {}
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override {
    check(x_TK.scalar_type() == at::kFloat, "products in bf16 take fp32 rows");
    return MixedLinear::apply(act ? fake_quantize(x_TK, *act) : x_TK, W_);
  }
  at::Tensor dense() const override { return W_; }
  std::optional<QTensor> unpack() const override { return std::nullopt; }
  int64_t bytes() const override { return W_.numel() * static_cast<int64_t>(W_.element_size()); }

 private:
  at::Tensor W_;
};

}  // namespace

bool has_bf16_products() { return bg::available(); }

Weight make_mixed(at::Tensor W_NK) {
  check(W_NK.dim() == 2 && W_NK.scalar_type() == at::kFloat, "products in bf16 are those of fp32 matrices");
  return std::make_shared<Mixed>(std::move(W_NK));
}

bool is_mixed(const WeightRep& weight) { return dynamic_cast<const Mixed*>(&weight) != nullptr; }

}  // namespace statera
