// Narrowing a pass to the rows an expert sees.
#include "nn/pass.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>

namespace statera {

Pass Pass::rows(const at::Tensor& index, const at::Tensor& weight) const {
  Pass p;
  if (positions.defined()) p.positions = at::index_select(positions, -1, index);
  if (kinds.defined()) p.kinds = at::index_select(kinds, 0, index);
  p.row_weight = row_weight.defined() ? at::index_select(row_weight, 0, index) * weight : weight;
  p.tap = tap;
  p.training = training;
  p.side = side;
  return p;
}

}  // namespace statera
