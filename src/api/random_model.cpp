// See random_model.h. Rows are rounded on all threads; a row's codes and scales depend on that row alone.
#include "api/random_model.h"

#include <ATen/ThreadLocalState.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "api/random_fill.h"
#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kChunk = 1 << 16;  // elements drawn at a time
constexpr int64_t kRows = 64;        // rows rounded at a time

template <class T>
void fill(const at::Tensor& out, const RandomFill& random, Spread s) {
  T* to = out.mutable_data_ptr<T>();
  const int64_t count = out.numel();
  parallel_for((count + kChunk - 1) / kChunk, 1, [&](int64_t first, int64_t last) {
    for (int64_t begin = first * kChunk; begin < std::min(last * kChunk, count); begin += kChunk) {
      const int64_t n = std::min(kChunk, count - begin);
      random.fill(to + begin, static_cast<uint64_t>(begin), static_cast<uint64_t>(n), s.mean, s.deviation);
    }
  });
}

QTensor round_rows(const at::Tensor& W, const QSpec& spec) {
  const int64_t N = W.size(0), K = W.size(1), G = spec.groups(K);
  QTensor out{spec, at::empty({N, K}, at::kChar), at::empty({N, G}, W.scalar_type()), {}};
  if (!spec.symmetric) out.zero = at::empty({N, G}, at::kChar);
  const at::ThreadLocalState state;
  parallel_for((N + kRows - 1) / kRows, 1, [&](int64_t first, int64_t last) {
    const at::ThreadLocalStateGuard same(state);
    const int64_t begin = first * kRows, end = std::min(last * kRows, N);
    const QTensor part = rtn(W.slice(0, begin, end), spec);
    out.q.slice(0, begin, end).copy_(part.q);
    out.scale.slice(0, begin, end).copy_(part.scale);
    if (out.zero.defined()) out.zero.slice(0, begin, end).copy_(part.zero);
  });
  return out;
}

}  // namespace

at::Tensor RandomSource::draw(const std::string& name, const std::vector<int64_t>& shape, bool linear) const {
  const Spread spread = spread_of(name, shape, linear);
  const RandomFill random(seed_, name);
  at::Tensor out = at::empty(shape, dtype_);
  if (dtype_ == at::kBFloat16) {
    fill<c10::BFloat16>(out, random, spread);
  } else if (dtype_ == at::kHalf) {
    fill<c10::Half>(out, random, spread);
  } else {
    fill<float>(out, random, spread);
  }
  return out;
}

at::Tensor RandomSource::tensor(const std::string& name, const std::vector<int64_t>& shape) { return draw(name, shape, false); }

Weight RandomSource::linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>&) {
  return make_dense(draw(path + ".weight", {out, in}, true));
}

Rounding plan_rounding(const ModelType& type, const Json& config, const QSpec& spec, std::optional<ActQuant> act, const SelectOptions& select,
                       std::optional<int64_t> head_bits) {
  ShapesOnly shapes;
  const std::unique_ptr<Model> model = type.make(config, shapes);
  check_requests(*model, select);
  Rounding plan{act, {}};
  for (const auto& [path, site] : model->params.linears) {
    if (!reason_by_role(*site, select).empty()) continue;
    if (spec.group > 0 && site->in % spec.group != 0)
      throw Error(ErrorKind::usage, "--w-group: layer " + path + " has " + std::to_string(site->in) + " inputs, which groups of " +
                                        std::to_string(spec.group) + " do not divide");
    QSpec& own = plan.layers.emplace(path, spec).first->second;
    if (head_bits && site->role == Role::head) own.bits = static_cast<int>(*head_bits);
  }
  if (plan.layers.empty()) throw Error(ErrorKind::usage, "this model has no layer to quantize");
  return plan;
}

Weight RoundingSource::linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) {
  const Weight w = inner_.linear(path, out, in, act);
  const auto layer = plan_.layers.find(path);
  if (layer == plan_.layers.end()) return w;
  if (act || w->unpack()) throw Error(ErrorKind::usage, "--w-bits: layer " + path + " is quantized already");
  act = plan_.act;
  return make_packed(round_rows(w->dense(), layer->second));
}

}  // namespace statera
