// WeightRep: how a weight matrix is held and multiplied. Four virtuals, frozen: what all representations can do.
// Dense (as stored or as trained), Rounded (fake-quant: keeps its QTensor), Packed (low bits in a kernel's layout).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "nn/elementwise.h"
#include "nn/qtensor.h"

namespace statera {

// How the input of a linear layer is quantized: symmetric. scale = max|x| / ((2^bits - 1) / 2) and codes in
// [-2^(bits-1), 2^(bits-1) - 1], as compressed-tensors defines it (vLLM's kernels divide by 127 instead of 127.5).
struct ActQuant {
  int bits = 8;
  int64_t group = -1;  // columns that share a scale; -1: a token has one. The last group may be shorter
  bool is_static = false;  // all tokens have the same scale, found before; larger values saturate. Not with groups
  float scale = 0;         // that; 0 where only the kind is known
  bool operator==(const ActQuant&) const = default;
};
// x with every row rounded to the grid of `act` (fake quantization): what the integer kernels compute with, exactly.
at::Tensor fake_quantize(const at::Tensor& x_TK, const ActQuant& act);

class WeightRep {
 public:
  virtual ~WeightRep() = default;
  // y[T, N] = x[T, K] * W^T, in x's dtype; no bias. `act` quantizes x first (null: x as it is).
  virtual at::Tensor apply(const at::Tensor& x_TK, const ActQuant* act) const = 0;
  // W as a floating tensor [N, K] (fp32 for quantized representations, the stored tensor for Dense).
  virtual at::Tensor dense() const = 0;
  // The integers behind W, when there are any.
  virtual std::optional<QTensor> unpack() const = 0;
  // Bytes the representation occupies.
  virtual int64_t bytes() const = 0;
};

using Weight = std::shared_ptr<const WeightRep>;
Weight make_dense(at::Tensor W_NK);         // floating, any of f32, bf16, f16
Weight make_rounded(QTensor q);
// Kernel layout. With an ActQuant of 8 bits whose groups fit those of the weight, both sides run in integers.
Weight make_packed(const QTensor& q);
// The same of codes as compressed-tensors packs them, without looking at them one by one: words_NW i32 [N, ceil(K * bits / 32)], fields low bit
// first, each code + 2^(bits-1); not of 7 bits. q.q is not read.
Weight make_packed(const QTensor& q, const at::Tensor& words_NW, int64_t columns);
bool is_packed(const WeightRep& weight);
// 8 bits in groups like the weight's, or of 128 columns where those are longer: what a packed weight can meet in integers. Nothing for
// other weights, and for packed ones whose groups are no multiple of 32.
std::optional<ActQuant> integer_activations(const WeightRep& weight);
// Whether all are packed and alike, so that x can be quantized once and one run over the threads serves all of them.
bool go_together(std::span<const WeightRep* const> weights, const at::Tensor& x_TK, const ActQuant* act);
// That: what apply() of each gives, plus its bias [N] where that is defined.
std::vector<at::Tensor> apply_together(std::span<const WeightRep* const> weights, std::span<const at::Tensor> biases, const at::Tensor& x_TK, const ActQuant* act);

// Rows of a weight: `count` of them from `first` on. Their bias is bias[first + n], if it is defined.
struct WeightRows {
  const WeightRep* weight = nullptr;
  int64_t first = 0, count = 0;
  at::Tensor bias;
};
// Whether apply_activated() serves them: packed and alike, x in fp32 and quantized so that integers meet integers. `times` may have no weight.
bool activates(const WeightRows& rows, const WeightRows& times, const at::Tensor& x_TK, const ActQuant* act);
// kind(x R^T + b) * (x R'^T + b') for the rows R and the rows R' of `times` (as many; no weight: 1), [T, count]. Neither product is written
// down whole: columns of both are finished while they are in the cache. Otherwise what apply(), add_bias() and activate_times() give.
at::Tensor apply_activated(Activation kind, const WeightRows& rows, const WeightRows& times, const at::Tensor& x_TK, const ActQuant* act);

// The input of one packed weight, quantized and laid out as its kernel reads it.
class PackedInput;
// Whether such an input of T rows is made column by column: `reader` packed and met in integers, with a static scale of x and long groups, T more
// rows than its decoding kernels take. (Groups of 128 columns can be finished so, too; it took longer than a pass of its own.)
bool quantizes_for(const WeightRep& reader, const ActQuant& reader_act, int64_t T);
// apply_activated(), quantized for `reader` [.., count] while it is in the cache.
std::shared_ptr<const PackedInput> apply_activated_for(Activation kind, const WeightRows& rows, const WeightRows& times, const at::Tensor& x_TK,
                                                       const ActQuant* act, const WeightRep& reader, const ActQuant& reader_act);
// What apply() gives for the rows that `x` was quantized from, plus the bias [N] where that is defined; fp32.
at::Tensor apply_to(const WeightRep& reader, const PackedInput& x, const at::Tensor& bias);

}  // namespace statera
