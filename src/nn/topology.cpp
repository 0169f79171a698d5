// Folding a per-channel scale through a group.
#include "nn/topology.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include "base/error.h"

namespace statera {

void fold_scale(const ScaleGroup& group, const at::Tensor& scale) {
  check(scale.dim() == 1 && scale.size(0) == group.channels, group.name);
  at::Tensor s = scale.to(at::kFloat);
  for (const auto& norm : group.norm) norm->value = norm->value.to(at::kFloat) / s;
  if (group.linear) {
    LinearSite& site = group.linear.site();
    at::Tensor rows = at::ones({site.out});
    rows.narrow(0, group.linear_begin, group.linear_count).copy_(s);
    site.weight = make_dense(site.weight->dense().to(at::kFloat) / rows.unsqueeze(1));
    if (site.bias.defined()) site.bias = site.bias.to(at::kFloat) / rows;
  }
  at::Tensor columns = group.reader_of.empty() ? s : at::index_select(s, 0, at::tensor(group.reader_of, at::kLong));
  for (const Linear& reader : group.readers) {
    LinearSite& site = reader.site();
    check(site.in == columns.size(0), group.name);
    site.weight = make_dense(site.weight->dense().to(at::kFloat) * columns.unsqueeze(0));
  }
}

void fold_norm(const std::shared_ptr<TensorSite>& norm, const std::vector<Linear>& readers) {
  at::Tensor gamma = norm->value.to(at::kFloat);
  for (const Linear& reader : readers) {
    LinearSite& site = reader.site();
    site.weight = make_dense(site.weight->dense().to(at::kFloat) * gamma.unsqueeze(0));
  }
  norm->value = at::ones(gamma.sizes());
}

void rotate_reader(const Linear& reader, const at::Tensor& R) {
  LinearSite& site = reader.site();
  site.weight = make_dense(at::matmul(site.weight->dense().to(at::kFloat), R));
}

void rotate_writer(const Linear& writer, const at::Tensor& R) {
  LinearSite& site = writer.site();
  site.weight = make_dense(at::matmul(R.t(), site.weight->dense().to(at::kFloat)));
  if (site.bias.defined()) site.bias = at::matmul(site.bias.to(at::kFloat), R);
}

}  // namespace statera
