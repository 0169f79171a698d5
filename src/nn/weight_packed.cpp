// Packed: low-bit weights in the kernels' layout, the only bridge from Tensor to their pointers. Without an activation quantizer they run
// through qgemm (exact but for fp32 rounding), with one of 8 bits through i8gemm in integers.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"
#include "base/heap.h"
#include "base/threads.h"
#include "kernels/i8gemm/i8gemm.h"
#include "kernels/qgemm/qgemm.h"
#include "nn/elementwise_kernel.h"
#include "nn/frozen.h"

namespace statera {
namespace {

namespace ew = kernels::elementwise;
namespace i8 = kernels::i8gemm;
namespace qg = kernels::qgemm;

class Packed : public WeightRep {
 public:
  // words_NW undefined: the codes are q.q.
  Packed(const QTensor& q, const at::Tensor& words_NW, int64_t columns)
      : qspec_(q.spec), scale_dtype_(q.scale.scalar_type()), spec_(spec_of(q, columns)), bytes_(static_cast<int64_t>(qg::packed_bytes(spec_))), memory_(large_memory(static_cast<uint64_t>(bytes_))) {
    const int centre = 1 << (q.spec.bits - 1);
    const at::Tensor scales = q.scale.to(at::kFloat).contiguous(), words = words_NW.defined() ? words_NW.contiguous() : at::Tensor();
    const at::Tensor zeros = q.zero.defined() ? (q.zero.to(at::kShort) + centre).to(at::kByte).contiguous() : at::Tensor();
    const at::Tensor codes = words.defined() ? at::Tensor() : q.q.contiguous();
    const int64_t K = spec_.k, G = qg::group_count(spec_), W = qg::row_words(spec_);
    const auto* word = words.defined() ? reinterpret_cast<const uint32_t*>(words.const_data_ptr<int32_t>()) : nullptr;
    const int8_t* code = codes.defined() ? codes.const_data_ptr<int8_t>() : nullptr;
    const float* scale = scales.const_data_ptr<float>();
    const uint8_t* zero = zeros.defined() ? zeros.const_data_ptr<uint8_t>() : nullptr;
    parallel_for(spec_.n, qg::kRowBlock, [&](int64_t first, int64_t last) {
      std::vector<uint8_t> block(code ? static_cast<size_t>(qg::kRowBlock * K) : 0);
      for (int64_t begin = first; begin < last; begin += qg::kRowBlock) {
        const int64_t end = std::min<int64_t>(begin + qg::kRowBlock, last);
        for (int64_t i = 0; code && i < (end - begin) * K; ++i) block[static_cast<size_t>(i)] = static_cast<uint8_t>(code[begin * K + i] + centre);
        const qg::Codes from{.codes = code ? block.data() : nullptr, .words = word ? word + begin * W : nullptr, .scales = scale + begin * G,
                             .zeros = zero ? zero + begin * G : nullptr};
        qg::pack_rows(spec_, from, memory_.get(), begin, end);
      }
    });
  }
  at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const override;
  at::Tensor dense() const override {
    at::Tensor W = at::empty({spec_.n, spec_.k}, at::kFloat);
    float* out = W.mutable_data_ptr<float>();
    parallel_for(spec_.n, 64, [&](int64_t begin, int64_t end) { qg::dequantize(spec_, data(), out + begin * spec_.k, begin, end); });
    return W;
  }
  std::optional<QTensor> unpack() const override {
    const int64_t G = qg::group_count(spec_);
    at::Tensor codes = at::empty({spec_.n, spec_.k}, at::kByte), scales = at::empty({spec_.n, G}, at::kFloat), zeros;
    if (spec_.zeros) zeros = at::empty({spec_.n, G}, at::kByte);
    qg::unpack(spec_, data(), codes.mutable_data_ptr<uint8_t>(), scales.mutable_data_ptr<float>(), spec_.zeros ? zeros.mutable_data_ptr<uint8_t>() : nullptr);
    const int centre = 1 << (qspec_.bits - 1);
    QTensor q{qspec_, (codes.to(at::kShort) - centre).to(at::kChar), scales.to(scale_dtype_), {}};
    if (spec_.zeros) q.zero = (zeros.to(at::kShort) - centre).to(at::kChar);
    return q;
  }
  int64_t bytes() const override { return bytes_; }
  const qg::Spec& spec() const { return spec_; }
  const void* data() const { return memory_.get(); }

 private:
  static qg::Spec spec_of(const QTensor& q, int64_t columns) {
    at::Tensor scales = q.scale.to(at::kFloat).contiguous();
    return {.n = q.scale.size(0), .k = columns, .bits = q.spec.bits, .group = q.spec.group, .zeros = q.zero.defined(),
            .scale = qg::exact_scale_type(scales.const_data_ptr<float>(), scales.numel())};
  }
  QSpec qspec_;
  at::ScalarType scale_dtype_;
  qg::Spec spec_;
  int64_t bytes_;
  std::shared_ptr<void> memory_;
};

using Weights = std::span<const Packed* const>;

// Rows of W that no two threads share the work of, for T rows of x: few where each is read once only, so that threads end together.
int64_t rows_together(int64_t T) { return T <= i8::kMaxDecodeRows ? i8::kBlocks * i8::kRowBlock : i8::kBestRows; }

// Calls run(number of the weight, its output, first row, end) for all rows of all weights, spread over the threads; T rows of x.
template <class Run>
void over_rows(Weights weights, int64_t T, std::vector<at::Tensor>& y, Run&& run) {
  const int64_t rows = rows_together(T);
  std::vector<int64_t> first{0};  // unit of so many rows at which each weight begins
  std::vector<float*> to;
  for (size_t i = 0; i < weights.size(); ++i) {
    first.push_back(first.back() + (weights[i]->spec().n + rows - 1) / rows);
    to.push_back(y[i].mutable_data_ptr<float>());
  }
  parallel_for(first.back(), 1, [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < weights.size(); ++i) {
      const int64_t from = std::max(begin, first[i]) - first[i], stop = std::min(end, first[i + 1]) - first[i];
      if (from < stop) run(i, to[i], from * rows, std::min(stop * rows, weights[i]->spec().n));
    }
  });
}

// Length of the segments in which both sides are integers; 0 where they are not.
int64_t integer_segment(const Packed& w, const ActQuant* act) { return act && act->bits == 8 && w.spec().k > 0 ? i8::segment_of(w.spec(), act->group) : 0; }

// x as int8, with the memory that it lies in.
struct QuantizedRows {
  at::Tensor q, scale, minus_sum;
  i8::Rows rows;
};

QuantizedRows room_for(const i8::Rows& like) {
  QuantizedRows out;
  i8::Rows& r = out.rows = like;
  out.q = at::empty({r.padded * r.stride}, at::kChar);
  out.scale = at::empty({r.padded, r.segments}, at::kFloat);
  out.minus_sum = at::empty({r.padded, r.segments}, at::kInt);
  r.q = out.q.mutable_data_ptr<int8_t>();
  r.scale = out.scale.mutable_data_ptr<float>();
  r.minus_sum = out.minus_sum.mutable_data_ptr<int32_t>();
  return out;
}

QuantizedRows quantize_rows(const at::Tensor& x32, const ActQuant& act, const i8::Rows& like) {
  const int64_t T = x32.size(0), K = x32.size(1);
  const QuantizedRows out = room_for(like);
  const i8::Rows& r = out.rows;
  const float* from = x32.const_data_ptr<float>();
  const std::vector<float> scales(act.is_static ? static_cast<size_t>(T) : 0, act.scale);
  parallel_for(r.padded / r.width, 2, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * r.width, rows = std::min(end * r.width, T) - first;
    if (act.is_static) return i8::quantize_static(from + first * K, K, rows, scales.data() + first, r, first);
    i8::quantize(from + first * K, K, rows, act.group, r, first);
  });
  return out;
}

// The same for weights that share x, whose rows lie differently for codes of 4 bits and others when they are few.
class QuantizedInput {
 public:
  QuantizedInput(Weights weights, const at::Tensor& x32, const ActQuant& act) {
    for (const Packed* w : weights) {
      const i8::Rows rows = i8::rows_of(x32.size(0), x32.size(1), integer_segment(*w, &act), w->spec().bits);
      size_t i = 0;
      while (i < kept_.size() && kept_[i].rows.evens_first != rows.evens_first) ++i;
      if (i == kept_.size()) kept_.push_back(quantize_rows(x32, act, rows));
      which_.push_back(i);
    }
  }
  const i8::Rows& of(size_t weight) const { return kept_[which_[weight]].rows; }

 private:
  std::vector<QuantizedRows> kept_;
  std::vector<size_t> which_;
};

// Calls f(first, count) for stretches of the rows of x that are multiplied at a time.
template <class F>
void over_stretches(const i8::Rows& x, int64_t T, F&& f) {
  const int64_t each = i8::rows_at_once(x, T);
  for (int64_t first = 0, count; first < T; first += count) {
    count = std::min(each, T - first);
    f(first, count);
  }
}

// The elements of a bias from `first` on.
ew::Vector from_on(const at::Tensor& bias, int64_t first) {
  ew::Vector v = vector_of(bias);
  v.data = static_cast<const char*>(v.data) + first * bias.element_size();
  return v;
}

// Calls run(number of the weight, to, first row of W, end) for what each weight writes: [T, n] each, fp32, plus biases where they are defined.
template <class Run>
std::vector<at::Tensor> products(Weights weights, std::span<const at::Tensor> biases, int64_t T, Run&& run) {
  std::vector<at::Tensor> y;
  for (const Packed* w : weights) y.push_back(at::empty({T, w->spec().n}, at::kFloat));
  if (T == 0) return y;
  over_rows(weights, T, y, [&](size_t i, float* to, int64_t begin, int64_t end) {
    run(i, to, begin, end);
    if (!biases.empty() && biases[i].defined()) ew::table().add_bias(to + begin, weights[i]->spec().n, T, end - begin, from_on(biases[i], begin));
  });
  return y;
}

// fp32 rows in and out whatever x's dtype. All weights read x and are integer_segment() alike. Biases are added in fp32.
std::vector<at::Tensor> multiply(Weights weights, std::span<const at::Tensor> biases, const at::Tensor& x, const ActQuant* act) {
  const int64_t segment = integer_segment(*weights[0], act), T = x.size(0), K = x.size(1);
  const at::Tensor x32 = (act && segment == 0 ? fake_quantize(x, *act) : x).to(at::kFloat).contiguous();
  std::optional<QuantizedInput> q;
  if (T > 0 && segment > 0) q.emplace(weights, x32, *act);
  const float* from = x32.const_data_ptr<float>();
  std::vector<at::Tensor> y = products(weights, biases, T, [&](size_t i, float* to, int64_t begin, int64_t end) {
    const Packed& w = *weights[i];
    if (q) i8::matmul(q->of(i), T, w.data(), w.spec(), nullptr, to, w.spec().n, begin, end);
    else qg::matmul(from, K, T, w.data(), w.spec(), nullptr, to, w.spec().n, begin, end);
  });
  for (at::Tensor& one : y) one = one.to(x.scalar_type());
  return y;
}

// Autograd, which only training asks for, goes through the dense weight.
bool wants_gradients(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

at::Tensor Packed::apply(const at::Tensor& x_TK, const ActQuant* act) const {
  if (wants_gradients(x_TK)) return frozen_linear(act ? fake_quantize(x_TK, *act) : x_TK, *this);
  const Packed* self = this;
  return multiply({&self, 1}, {}, x_TK, act)[0];
}

}  // namespace

Weight make_packed(const QTensor& q) {
  check(q.q.scalar_type() == at::kChar && q.scale.size(0) == q.rows() && q.scale.size(1) == q.spec.groups(q.columns()), "make_packed: shapes");
  return std::make_shared<Packed>(q, at::Tensor(), q.columns());
}

Weight make_packed(const QTensor& q, const at::Tensor& words_NW, int64_t columns) {
  check(q.spec.bits != 7 && words_NW.scalar_type() == at::kInt && words_NW.size(0) == q.scale.size(0) && words_NW.size(1) == (columns * q.spec.bits + 31) / 32 &&
            q.scale.size(1) == q.spec.groups(columns),
        "make_packed: shapes of words");
  return std::make_shared<Packed>(q, words_NW, columns);
}

bool is_packed(const WeightRep& weight) { return dynamic_cast<const Packed*>(&weight) != nullptr; }

std::optional<ActQuant> integer_activations(const WeightRep& weight) {
  constexpr int64_t kMost = 128;  // columns: an outlier spoils the scale of no more, and longer groups save little
  const auto* packed = dynamic_cast<const Packed*>(&weight);
  if (!packed) return std::nullopt;
  const int64_t own = qg::group_size(packed->spec());
  const bool whole = own >= packed->spec().k || own % kMost == 0;
  const ActQuant act{.bits = 8, .group = whole ? kMost : own};
  if (integer_segment(*packed, &act) == 0) return std::nullopt;
  return act;
}

bool go_together(std::span<const WeightRep* const> weights, const at::Tensor& x_TK, const ActQuant* act) {
  const Packed* first = nullptr;
  for (const WeightRep* w : weights) {
    const auto* packed = dynamic_cast<const Packed*>(w);
    if (!packed || packed->spec().k != x_TK.size(1)) return false;
    if (!first) first = packed;
    if (integer_segment(*packed, act) != integer_segment(*first, act)) return false;
  }
  return first && !wants_gradients(x_TK);
}

std::vector<at::Tensor> apply_together(std::span<const WeightRep* const> weights, std::span<const at::Tensor> biases, const at::Tensor& x_TK, const ActQuant* act) {
  check(go_together(weights, x_TK, act) && (biases.empty() || biases.size() == weights.size()), "weights that go together");
  std::vector<const Packed*> packed;
  for (const WeightRep* w : weights) packed.push_back(static_cast<const Packed*>(w));
  return multiply(packed, biases, x_TK, act);
}

bool activates(const WeightRows& rows, const WeightRows& times, const at::Tensor& x_TK, const ActQuant* act) {
  std::vector<const WeightRep*> weights{rows.weight};
  if (times.weight) weights.push_back(times.weight);
  if (!kernel_reads(x_TK) || !go_together(weights, x_TK, act)) return false;
  if (integer_segment(static_cast<const Packed&>(*rows.weight), act) == 0) return false;
  for (const WeightRows* r : {&rows, &times}) {
    if (!r->weight) continue;
    const int64_t N = static_cast<const Packed&>(*r->weight).spec().n, end = r->first + r->count;
    if (r->count != rows.count || r->first % i8::kRowBlock != 0 || (end % i8::kRowBlock != 0 && end != N) || end > N) return false;
    if (r->bias.defined() && !is_vector(r->bias)) return false;
  }
  return true;
}

namespace {

// [count, end - begin] of a product with its bias, in memory of this thread; null where there is no weight.
float* product_in(std::vector<float>& out, const WeightRows& r, const i8::Rows& x, int64_t count, int64_t begin, int64_t end) {
  if (!r.weight) return nullptr;
  const auto& w = static_cast<const Packed&>(*r.weight);
  const int64_t width = end - begin, n = r.first + begin;
  out.resize(std::max(out.size(), static_cast<size_t>(count * width)));
  i8::matmul(x, count, w.data(), w.spec(), nullptr, out.data() - n, width, n, n + width);  // column n of y is the first
  if (r.bias.defined()) ew::table().add_bias(out.data(), width, count, width, from_on(r.bias, n));
  return out.data();
}

// A part of the products: of `count` rows of x from `first` on and columns [begin, end).
struct Part {
  int64_t first, count, begin, end;
};
// Calls finish(part, a, b) for parts of all rows and columns, from all threads, while the products of `rows` and `times` (null: none) of the part,
// [count, end - begin] each, are in the cache.
template <class Finish>
void over_products(const WeightRows& rows, const WeightRows& times, const at::Tensor& x_TK, const ActQuant& act, Finish&& finish) {
  const int64_t T = x_TK.size(0), F = rows.count, unit = rows_together(T);
  std::vector<const Packed*> weights{static_cast<const Packed*>(rows.weight)};
  if (times.weight) weights.push_back(static_cast<const Packed*>(times.weight));
  const QuantizedInput q(weights, x_TK.contiguous(), act);
  parallel_for((F + unit - 1) / unit, 1, [&](int64_t first_unit, int64_t last_unit) {
    thread_local std::vector<float> activated, factor;
    const int64_t stop = std::min(last_unit * unit, F);
    over_stretches(q.of(0), T, [&](int64_t first, int64_t count) {
      const i8::Rows x = i8::rows_from(q.of(0), first), x_times = times.weight ? i8::rows_from(q.of(1), first) : i8::Rows{};
      const int64_t width = T <= i8::kMaxDecodeRows ? stop - first_unit * unit : unit;
      for (int64_t begin = first_unit * unit; begin < stop; begin += width) {
        const Part p{first, count, begin, std::min(stop, begin + width)};
        float* a = product_in(activated, rows, x, count, p.begin, p.end);
        finish(p, a, product_in(factor, times, x_times, count, p.begin, p.end));
      }
    });
  });
}

}  // namespace

at::Tensor apply_activated(Activation kind, const WeightRows& rows, const WeightRows& times, const at::Tensor& x_TK, const ActQuant* act) {
  check(activates(rows, times, x_TK, act), "weights whose products can be activated");
  const int64_t T = x_TK.size(0), F = rows.count;
  at::Tensor y = at::empty({T, F}, x_TK.options());
  if (T == 0) return y;
  float* to = y.mutable_data_ptr<float>();
  over_products(rows, times, x_TK, *act, [&](const Part& p, const float* a, const float* b) {
    const int64_t width = p.end - p.begin;
    ew::table().activate(act_of(kind), a, width, b, width, p.count, width, to + p.first * F + p.begin, F);
  });
  return y;
}

class PackedInput {
 public:
  PackedInput(int64_t rows, const i8::Rows& like) : T(rows), x(room_for(like)) {}
  int64_t T;
  QuantizedRows x;
};

bool quantizes_for(const WeightRep& reader, const ActQuant& act, int64_t T) {
  const auto* packed = dynamic_cast<const Packed*>(&reader);
  const int64_t segment = packed && act.is_static ? integer_segment(*packed, &act) : 0;
  return segment > i8::kShortSegment && T > i8::kMostDecodeRows;
}

std::shared_ptr<const PackedInput> apply_activated_for(Activation kind, const WeightRows& rows, const WeightRows& times, const at::Tensor& x_TK,
                                                       const ActQuant* act, const WeightRep& reader, const ActQuant& reader_act) {
  const auto& r = static_cast<const Packed&>(reader);
  const int64_t T = x_TK.size(0);
  check(activates(rows, times, x_TK, act) && quantizes_for(reader, reader_act, T) && r.spec().k == rows.count, "weights whose products can be quantized");
  const auto out = std::make_shared<PackedInput>(T, i8::rows_of(T, r.spec().k, integer_segment(r, &reader_act), r.spec().bits));
  out->x.minus_sum.zero_();
  const std::vector<float> scales(static_cast<size_t>(T), reader_act.scale);
  over_products(rows, times, x_TK, *act, [&](const Part& p, float* a, const float* b) {
    const int64_t width = p.end - p.begin;
    ew::table().activate(act_of(kind), a, width, b, width, p.count, width, a, width);
    i8::quantize_static_columns(a, width, p.count, scales.data() + p.first, out->x.rows, p.first, p.begin, p.end);
  });
  return out;
}

at::Tensor apply_to(const WeightRep& reader, const PackedInput& x, const at::Tensor& bias) {
  const auto* w = static_cast<const Packed*>(&reader);
  check(w->spec().k == x.x.rows.k, "the input of another weight");
  return products({&w, 1}, {&bias, 1}, x.T, [&](size_t, float* to, int64_t begin, int64_t end) {
    i8::matmul(x.x.rows, x.T, w->data(), w->spec(), nullptr, to, w->spec().n, begin, end);
  })[0];
}

}  // namespace statera
