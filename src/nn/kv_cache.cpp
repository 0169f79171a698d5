// See kv_cache.h.
#include "nn/kv_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/attn/attn.h"
#include "nn/pass.h"

namespace statera {
namespace {

namespace attn = kernels::attn;

constexpr int64_t kGrain = int64_t{1} << 16;  // elements that are not worth a thread

// [K, T, ...] with room for `capacity` rows, the first `length` kept.
at::Tensor grown(const at::Tensor& from, int64_t length, int64_t capacity) {
  std::vector<int64_t> shape = from.sizes().vec();
  shape[1] = capacity;
  at::Tensor to = at::empty(shape, from.options());
  if (length > 0) to.narrow(1, 0, length).copy_(from.narrow(1, 0, length));
  return to;
}

void reserve(KvRows& rows, KvForm form, const at::Tensor& x, int64_t length, int64_t capacity) {
  if (!rows.data.defined()) {
    const at::ScalarType kept = form == KvForm::int8 ? at::kChar : form == KvForm::fp16 ? at::kHalf : x.scalar_type();
    const at::TensorOptions options{at::kCPU};
    rows.data = at::empty({x.size(1), 0, x.size(2)}, options.dtype(kept));
    if (form == KvForm::int8) rows.scale = at::empty({x.size(1), 0}, options.dtype(at::kFloat));
  }
  rows.data = grown(rows.data, length, capacity);
  if (rows.scale.defined()) rows.scale = grown(rows.scale, length, capacity);
}

// x [T, K, d] into `to` from row `at` on. False when a finite element did not fit.
bool put(const at::Tensor& x, KvRows& to, int64_t at) {
  const at::ScalarType kept = to.data.scalar_type();
  const bool round = kept == at::kChar || (kept == at::kHalf && x.scalar_type() != at::kHalf);
  at::Tensor rows = x.to(round ? at::kFloat : kept);
  if (rows.stride(2) != 1) rows = rows.contiguous();
  const int64_t T = x.size(0), K = x.size(1), d = x.size(2), capacity = to.data.size(1), row = rows.stride(0), head = rows.stride(1);
  const auto read = static_cast<int64_t>(rows.element_size()), write = static_cast<int64_t>(to.data.element_size());
  const auto* from = static_cast<const std::byte*>(rows.const_data_ptr());
  auto* data = static_cast<std::byte*>(to.data.mutable_data_ptr());
  float* scale = to.scale.defined() ? to.scale.mutable_data_ptr<float>() : nullptr;
  const attn::Form form = kept == at::kChar ? attn::Form::i8 : attn::Form::f16;
  std::atomic<bool> fits = true;
  parallel_for(T, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, K * d)), [&](int64_t begin, int64_t end) {
    for (int64_t h = 0; h < K; ++h) {
      for (int64_t t = begin; t < end; ++t) {
        const std::byte* x_d = from + (t * row + h * head) * read;
        const int64_t place = h * capacity + at + t;
        if (!round)
          std::memcpy(data + place * d * write, x_d, static_cast<size_t>(d * write));
        else if (!attn::store(reinterpret_cast<const float*>(x_d), d, form, data + place * d * write, scale ? scale + place : nullptr))
          fits = false;
      }
    }
  });
  return fits;
}

at::Tensor floats(const KvRows& rows, int64_t length, at::ScalarType dtype) {
  at::Tensor x = rows.data.narrow(1, 0, length);
  if (rows.scale.defined()) x = x.to(at::kFloat) * rows.scale.narrow(1, 0, length).unsqueeze(2);
  return x.to(dtype).permute({1, 0, 2});
}

}  // namespace

KvForm parse_kv_form(std::string_view name) {
  if (name == "auto") return KvForm::automatic;
  if (name == "fp16") return KvForm::fp16;
  if (name == "int8") return KvForm::int8;
  throw Error(ErrorKind::usage, "unknown form of keys and values \"" + std::string(name) + "\" (auto, fp16 or int8)");
}

int64_t kv_row_bytes(KvForm form, int64_t width, at::ScalarType dtype) {
  if (form == KvForm::int8) return width + static_cast<int64_t>(sizeof(float));
  return width * static_cast<int64_t>(c10::elementSize(form == KvForm::fp16 ? at::kHalf : dtype));
}

void KvCache::append(int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  Layer& l = layers_.at(static_cast<size_t>(layer));
  const int64_t need = l.length + k.size(0), capacity = l.k.data.defined() ? l.k.data.size(1) : 0;
  if (need > capacity) {
    const int64_t larger = std::max<int64_t>({need, capacity * 2, 64});
    reserve(l.k, form_, k, l.length, larger);
    reserve(l.v, form_, v, l.length, larger);
  }
  const bool keys_fit = put(k, l.k, l.length), values_fit = put(v, l.v, l.length);
  l.length = need;
  if (!keys_fit || !values_fit) {
    throw Error(ErrorKind::unsupported, "layer " + std::to_string(layer) + ": " + (keys_fit ? "a value" : "a key") +
                                            " is beyond the 65504 that fp16 holds (--kv-cache auto or int8)");
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::rows(int64_t layer, at::ScalarType dtype) const {
  const Layer& l = layers_.at(static_cast<size_t>(layer));
  return {floats(l.k, l.length, dtype), floats(l.v, l.length, dtype)};
}

void KvCache::truncate(int64_t length) {
  for (Layer& l : layers_) {
    check(length <= l.length, "KvCache::truncate beyond its length");
    l.length = length;
  }
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const Layer& l : layers_) {
    for (const at::Tensor* t : {&l.k.data, &l.k.scale, &l.v.data, &l.v.scale}) {
      if (t->defined()) total += static_cast<int64_t>(t->nbytes());
    }
  }
  return total;
}

std::vector<KvCache> caches_for(Pass& pass, int64_t layers, KvForm form) {
  std::vector<KvCache> caches;
  if (form == KvForm::automatic) return caches;
  caches.reserve(static_cast<size_t>(pass.sequences()));  // their places stay
  for (int64_t s = 0; s < pass.sequences(); ++s) pass.caches.push_back(&caches.emplace_back(layers, form));
  return caches;
}

}  // namespace statera
