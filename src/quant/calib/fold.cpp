// Folding in fp32, storing in what the checkpoint holds.
#include "quant/calib/fold.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"

namespace statera {
namespace {

// The linear layers that folding changes.
std::set<LinearSite*> sites_of(const ScaleGroup& group) {
  std::set<LinearSite*> out;
  for (const Linear& reader : group.readers) out.insert(&reader.site());
  if (group.linear) out.insert(&group.linear.site());
  return out;
}

}  // namespace

void fold_stored(const BlockJob& job, const ScaleGroup& group, const at::Tensor& scale) {
  if (!scale.isfinite().all().item<bool>() || !(scale > 0).all().item<bool>())
    throw Error(ErrorKind::bad_file, job.name() + ": group " + group.name + ": no finite positive scales (NaN or infinite weights or activations?)");
  std::map<LinearSite*, std::pair<at::ScalarType, at::ScalarType>> linears;  // stored types of weight and bias
  for (LinearSite* s : sites_of(group)) linears[s] = {s->weight->dense().scalar_type(), s->bias.defined() ? s->bias.scalar_type() : at::kFloat};
  std::vector<at::ScalarType> norms;
  for (const auto& norm : group.norm) norms.push_back(norm->value.scalar_type());
  fold_scale(group, scale);
  for (size_t i = 0; i < norms.size(); ++i) group.norm[i]->value = group.norm[i]->value.to(norms[i]);
  for (const auto& [site, types] : linears) {
    site->weight = make_dense(site->weight->dense().to(types.first));
    if (site->bias.defined()) site->bias = site->bias.to(types.second);
  }
}

void fold_group(BlockJob& job, const ScaleGroup& group, ScaleRecord record) {
  fold_stored(job, group, record.scale_C);
  for (const auto& norm : group.norm) job.rewrite(norm->path, norm->value);
  const auto layers = job.layers();
  for (const LinearSite* site : sites_of(group)) {
    const bool rounded = std::any_of(layers.begin(), layers.end(), [site](const auto& l) { return l.get() == site; });
    if (!rounded) job.rewrite(site->path + ".weight", site->weight->dense());
    if (site->bias.defined() && group.linear && site == &group.linear.site()) job.rewrite(site->path + ".bias", site->bias);
  }
  record.group = group.name;
  for (const Linear& reader : group.readers) record.readers.push_back(reader.site().path);
  job.scaled(std::move(record));
}

}  // namespace statera
