// Folding in fp32, storing in what the checkpoint holds.
#include "quant/calib/fold.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <map>

#include "base/error.h"

namespace statera {

void fold_group(BlockJob& job, const ScaleGroup& group, ScaleRecord record) {
  const at::Tensor scale = record.scale_C;
  if (!scale.isfinite().all().item<bool>() || !(scale > 0).all().item<bool>())
    throw Error(ErrorKind::bad_file, job.name() + ": group " + group.name + ": no finite positive scales (NaN or infinite weights or activations?)");
  std::map<LinearSite*, std::pair<at::ScalarType, at::ScalarType>> linears;  // stored types of weight and bias
  auto remember = [&](const Linear& l) {
    LinearSite& s = l.site();
    linears[&s] = {s.weight->dense().scalar_type(), s.bias.defined() ? s.bias.scalar_type() : at::kFloat};
  };
  for (const Linear& reader : group.readers) remember(reader);
  if (group.linear) remember(group.linear);
  std::vector<at::ScalarType> norms;
  for (const auto& norm : group.norm) norms.push_back(norm->value.scalar_type());
  fold_scale(group, scale);
  for (size_t i = 0; i < norms.size(); ++i) {
    group.norm[i]->value = group.norm[i]->value.to(norms[i]);
    job.rewrite(group.norm[i]->path, group.norm[i]->value);
  }
  const auto layers = job.layers();
  for (const auto& [site, types] : linears) {
    site->weight = make_dense(site->weight->dense().to(types.first));
    const bool rounded = std::any_of(layers.begin(), layers.end(), [s = site](const auto& l) { return l.get() == s; });
    if (!rounded) job.rewrite(site->path + ".weight", site->weight->dense());
    if (!site->bias.defined() || !group.linear || site != &group.linear.site()) continue;
    site->bias = site->bias.to(types.second);
    job.rewrite(site->path + ".bias", site->bias);
  }
  record.group = group.name;
  for (const Linear& reader : group.readers) record.readers.push_back(reader.site().path);
  job.scaled(std::move(record));
}

}  // namespace statera
