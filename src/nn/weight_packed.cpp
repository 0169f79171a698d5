// Packed: low-bit weights in the kernels' layouts, the only bridge from Tensor to their pointers. Weight-only matrices run through qgemm
// (exact but for fp32 rounding); per-row int8 matrices whose site quantizes its input run through i8gemm in integers.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cstdlib>
#include <new>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/i8gemm/i8gemm.h"
#include "kernels/qgemm/qgemm.h"
#include "nn/frozen.h"

namespace statera {
namespace {

namespace i8 = kernels::i8gemm;
namespace qg = kernels::qgemm;

// 64-byte aligned bytes, as the kernels like them.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes), data_(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
    if (!data_) throw std::bad_alloc();
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data() const { return data_; }
  int64_t size() const { return static_cast<int64_t>(bytes_); }

 private:
  size_t bytes_;
  void* data_;
};

// fp32 rows in and out whatever x's dtype; autograd, which only training asks for, goes through the dense weight, made anew each time.
template <class Run>
at::Tensor through_kernel(const WeightRep& rep, const at::Tensor& x, int64_t N, Run&& run) {
  if (at::GradMode::is_enabled() && x.requires_grad()) return frozen_linear(x, rep);
  at::Tensor x32 = x.to(at::kFloat).contiguous();
  at::Tensor y = at::empty({x.size(0), N}, x32.options());
  if (x.size(0) > 0) run(x32.const_data_ptr<float>(), y.mutable_data_ptr<float>());
  return y.to(x.scalar_type());
}

class PackedLow : public WeightRep {
 public:
  explicit PackedLow(const QTensor& q) : qspec_(q.spec), scale_dtype_(q.scale.scalar_type()), spec_(spec_of(q)), buffer_(qg::packed_bytes(spec_)) {
    const int centre = 1 << (q.spec.bits - 1);
    at::Tensor codes = (q.q.to(at::kShort) + centre).to(at::kByte).contiguous();
    at::Tensor scales = q.scale.to(at::kFloat).contiguous();
    at::Tensor zeros = q.zero.defined() ? (q.zero.to(at::kShort) + centre).to(at::kByte).contiguous() : at::Tensor();
    qg::pack(spec_, codes.const_data_ptr<uint8_t>(), scales.const_data_ptr<float>(), zeros.defined() ? zeros.const_data_ptr<uint8_t>() : nullptr, buffer_.data());
  }
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override {
    at::Tensor x = act ? fake_quantize(x_TK, *act) : x_TK;
    return through_kernel(*this, x, spec_.n, [&](const float* from, float* to) {
      parallel_for(spec_.n, qg::kRowBlock, [&](int64_t begin, int64_t end) {
        qg::matmul(from, spec_.k, x.size(0), buffer_.data(), spec_, nullptr, to, spec_.n, begin, end);
      });
    });
  }
  at::Tensor dense() const override {
    at::Tensor W = at::empty({spec_.n, spec_.k}, at::kFloat);
    float* out = W.mutable_data_ptr<float>();
    parallel_for(spec_.n, 64, [&](int64_t begin, int64_t end) { qg::dequantize(spec_, buffer_.data(), out + begin * spec_.k, begin, end); });
    return W;
  }
  std::optional<QTensor> unpack() const override {
    const int64_t G = qg::group_count(spec_);
    at::Tensor codes = at::empty({spec_.n, spec_.k}, at::kByte), scales = at::empty({spec_.n, G}, at::kFloat), zeros;
    if (spec_.zeros) zeros = at::empty({spec_.n, G}, at::kByte);
    qg::unpack(spec_, buffer_.data(), codes.mutable_data_ptr<uint8_t>(), scales.mutable_data_ptr<float>(), spec_.zeros ? zeros.mutable_data_ptr<uint8_t>() : nullptr);
    const int centre = 1 << (qspec_.bits - 1);
    QTensor q{qspec_, (codes.to(at::kShort) - centre).to(at::kChar), scales.to(scale_dtype_), {}};
    if (spec_.zeros) q.zero = (zeros.to(at::kShort) - centre).to(at::kChar);
    return q;
  }
  int64_t bytes() const override { return buffer_.size(); }

 private:
  static qg::Spec spec_of(const QTensor& q) {
    at::Tensor scales = q.scale.to(at::kFloat).contiguous();
    return {.n = q.rows(), .k = q.columns(), .bits = q.spec.bits, .group = q.spec.group, .zeros = q.zero.defined(),
            .scale = qg::exact_scale_type(scales.const_data_ptr<float>(), scales.numel())};
  }
  QSpec qspec_;
  at::ScalarType scale_dtype_;
  qg::Spec spec_;
  Buffer buffer_;
};

class PackedInt8 : public WeightRep {
 public:
  explicit PackedInt8(const QTensor& q) : qspec_(q.spec), scale_dtype_(q.scale.scalar_type()), spec_{q.rows(), q.columns(), q.zero.defined()}, buffer_(i8::packed_bytes(spec_)) {
    at::Tensor codes = q.q.contiguous(), scales = q.scale.to(at::kFloat).contiguous();
    at::Tensor zeros = q.zero.defined() ? q.zero.contiguous() : at::Tensor();
    i8::pack(spec_, codes.const_data_ptr<int8_t>(), scales.const_data_ptr<float>(), zeros.defined() ? zeros.const_data_ptr<int8_t>() : nullptr, buffer_.data());
  }
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override {
    const int64_t T = x_TK.size(0), K = spec_.k, N = spec_.n;
    if (!act || act->bits != 8) return frozen_linear(act ? fake_quantize(x_TK, *act) : x_TK, *this);
    return through_kernel(*this, x_TK, N, [&](const float* from, float* to) {
      at::Tensor q = at::empty({T, K}, at::kChar), s = at::empty({T}, at::kFloat);
      int8_t* codes = q.mutable_data_ptr<int8_t>();
      float* scale = s.mutable_data_ptr<float>();
      parallel_for(T, 8, [&](int64_t begin, int64_t end) { i8::quantize_rows(from + begin * K, K, end - begin, K, codes + begin * K, K, scale + begin); });
      parallel_for(N, i8::kRowBlock, [&](int64_t begin, int64_t end) {
        i8::matmul(codes, K, T, scale, nullptr, buffer_.data(), spec_, nullptr, to, N, begin, end);
      });
    });
  }
  at::Tensor dense() const override { return unpack()->dequantize(); }
  std::optional<QTensor> unpack() const override {
    at::Tensor codes = at::empty({spec_.n, spec_.k}, at::kChar), scales = at::empty({spec_.n, 1}, at::kFloat), zeros;
    if (spec_.zeros) zeros = at::empty({spec_.n, 1}, at::kChar);
    i8::unpack(spec_, buffer_.data(), codes.mutable_data_ptr<int8_t>(), scales.mutable_data_ptr<float>(), spec_.zeros ? zeros.mutable_data_ptr<int8_t>() : nullptr);
    return QTensor{qspec_, codes, scales.to(scale_dtype_), zeros};
  }
  int64_t bytes() const override { return buffer_.size(); }

 private:
  QSpec qspec_;
  at::ScalarType scale_dtype_;
  i8::Spec spec_;
  Buffer buffer_;
};

}  // namespace

Weight make_packed(const QTensor& q, bool int8_activations) {
  check(q.q.scalar_type() == at::kChar && q.scale.size(0) == q.rows() && q.scale.size(1) == q.spec.groups(q.columns()), "make_packed: shapes");
  if (int8_activations && q.spec.groups(q.columns()) == 1) return std::make_shared<PackedInt8>(q);
  return std::make_shared<PackedLow>(q);
}

}  // namespace statera
