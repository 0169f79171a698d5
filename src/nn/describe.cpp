// See describe.h.
#include "nn/describe.h"

#include <algorithm>

#include "nn/kv_cache.h"

namespace statera {

int64_t visible_keys(int64_t queries, int64_t keys, bool causal, int64_t window) {
  if (!causal) return queries * keys;
  int64_t total = 0;
  for (int64_t position = keys - queries; position < keys; ++position) total += window > 0 ? std::min(window, position + 1) : position + 1;
  return total;
}

profile::Description describe_linear(const LinearSite& site, int64_t rows, int64_t element_size) {
  const auto T = static_cast<double>(rows), in = static_cast<double>(site.in), out = static_cast<double>(site.out);
  profile::Description d{site.path, {}};
  d.work.weights = in * out;
  d.work.weight_bytes = static_cast<double>(site.weight->bytes());
  d.work.flop = 2 * T * in * out;
  d.work.bytes = d.work.weight_bytes + T * (in + out) * static_cast<double>(element_size);
  return d;
}

profile::Description describe_linear(const LinearSite& site, const at::Tensor& x) {
  return describe_linear(site, x.numel() / std::max<int64_t>(1, site.in), x.element_size());
}

profile::Description describe_together(std::initializer_list<const Linear*> layers, const at::Tensor& x) {
  profile::Description all;
  for (const Linear* layer : layers) {
    profile::Description one = describe_linear(layer->site(), x);
    all.name = all.name.empty() ? one.name : all.name + "+" + one.name.substr(one.name.rfind('.') + 1);
    all.work += one.work;
  }
  return all;
}

profile::Description describe_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendSite& site,
                                        const SequenceBounds& bounds, const Pass& pass, bool cached) {
  const auto heads = static_cast<double>(q.size(1)), groups = static_cast<double>(k.size(1)), widths = static_cast<double>(k.size(2) + v.size(2));
  auto row_bytes = [&](KvForm form) { return static_cast<double>(kv_row_bytes(form, k.size(2), q.scalar_type()) + kv_row_bytes(form, v.size(2), q.scalar_type())); };
  profile::Description d;
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int64_t queries = bounds[s + 1] - bounds[s], before = cached ? pass.caches[s]->length(site.layer) : 0, keys = before + queries;
    const int64_t read = site.causal && site.window > 0 ? std::min(keys, site.window + queries - 1) : keys;
    d.work.flop += 2 * heads * widths * static_cast<double>(visible_keys(queries, keys, site.causal, site.window));
    d.work.bytes += heads * static_cast<double>(queries) * row_bytes(KvForm::automatic);
    d.work.bytes += groups * static_cast<double>(read) * row_bytes(cached ? pass.caches[s]->form() : KvForm::automatic);
  }
  if (site.in_integers) d.work.integer_flop = d.work.flop;
  return d;
}

profile::Description describe_elementwise(const at::Tensor& x) {
  profile::Description d;
  d.work.bytes = 2 * static_cast<double>(x.numel()) * static_cast<double>(x.element_size());
  return d;
}

}  // namespace statera
