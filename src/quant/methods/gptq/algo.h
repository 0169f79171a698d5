// GPTQ: rounding column by column, each column's error made good by the columns not yet rounded, so that tr(dW G dW^T) becomes small
// (Frantar et al. 2022; AGQ of MoEQuant 3.1 is the same with an affinity-weighted gram). Pure: no model, no files, no step.
// Formulated as nearest-plane rounding on one Cholesky factor: with H = R R^T (R upper) the loss is |dW R|^2, and the best value of
// column j given those before it is w_j - sum_{i<j} d_i R_ij / R_jj. Same result as the inverse-Hessian form, no inverse.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "nn/qtensor.h"
#include "quant/search/grid.h"

namespace statera {

struct GptqOptions {
  int64_t block = 128;             // columns per panel; changes speed, not results (beyond the rounding of fp32)
  double damp = 0.01;              // added to the gram's diagonal, as a fraction of its mean over live columns; times 10 until it factors
  bool act_order = false;          // columns in order of falling gram diagonal, on grids of the original groups: no g_idx is needed
  std::optional<ClipSearch> clip;  // range of each row or group by least |error|^norm instead of its extremes
};

// What a gram contributes, shared by all layers that read the same input (q/k/v, gate/up).
struct GptqFactor {
  at::Tensor unit;      // f32 [K, K], R with its columns divided by its diagonal: unit upper triangular
  at::Tensor diagonal;  // f64 [K], of R
  at::Tensor added;     // f64 [K], what was added to the gram's diagonal
  at::Tensor order;     // i64 [K], the column rounded at each step; undefined: as they are
  double damp = 0;      // fraction used in the end
  int64_t dead = 0;     // columns whose input was always zero: rounded to nearest
};
// gram floating [K, K], symmetric positive semidefinite, any scale; an all-zero one gives round-to-nearest. Error(bad_file) when it holds
// NaN, infinity or a negative diagonal; Error(usage) for options out of range.
GptqFactor gptq_factor(const at::Tensor& gram_KK, const GptqOptions& options = {});
// The same for an fp32 gram whose memory becomes the factor's, without a second one of its size (but under act_order, or when fp32 is not enough).
GptqFactor gptq_factor_in_place(at::Tensor gram_KK, const GptqOptions& options = {});

struct GptqResult {
  QTensor q;
  double loss = 0;  // tr(dW G dW^T), dW = dequantized - W, G without damping
  double damp = 0;  // as in GptqFactor
  int64_t dead = 0;
};
// W floating [N, K]. Grids by the formulas of rtn() in W's dtype: of whole rows and under act_order from W, otherwise of each group when it
// is reached, from its columns as they are by then. Codes are nearest in fp32.
GptqResult gptq(const at::Tensor& W_NK, const GptqFactor& factor, const QSpec& spec, const GptqOptions& options = {});
GptqResult gptq(const at::Tensor& W_NK, const at::Tensor& gram_KK, const QSpec& spec, const GptqOptions& options = {});

}  // namespace statera
