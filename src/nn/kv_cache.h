// KvCache: the keys and values of one sequence, for every layer of a stack, in the form they are kept in: as activations are, in fp16, or as
// int8 codes with a scale for each row and head. Grows by doubling; rows are appended in order. Keeps no graph; computes no attention.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace statera {

struct Pass;

enum class KvForm { automatic, fp16, int8 };  // automatic: the activations' dtype
// "auto", "fp16", "int8"; Error(usage) otherwise.
KvForm parse_kv_form(std::string_view name);
// Bytes of one row of one head, `width` elements wide, of activations of `dtype`.
int64_t kv_row_bytes(KvForm form, int64_t width, at::ScalarType dtype);

// Rows as they are kept, a head after the other.
struct KvRows {
  at::Tensor data;   // [K, capacity, d], floating, or codes in i8
  at::Tensor scale;  // f32 [K, capacity], with codes only
};

class KvCache {
 public:
  explicit KvCache(int64_t layers, KvForm form = KvForm::automatic) : form_(form), layers_(static_cast<size_t>(layers)) {}
  virtual ~KvCache() = default;
  KvCache(KvCache&&) = default;
  KvForm form() const { return form_; }
  // Appends k, v [T, K, d] to a layer. int8: each row and head by itself, as ActQuant{8} rounds activations (weight.h). Error(unsupported)
  // where fp16 cannot hold a finite element; the cache is then of no use until it is truncated to what it held before. Virtual for tests, which
  // round by the definition.
  virtual void append(int64_t layer, const at::Tensor& k_TKd, const at::Tensor& v_TKd);
  const KvRows& keys(int64_t layer) const { return layers_.at(static_cast<size_t>(layer)).k; }
  const KvRows& values(int64_t layer) const { return layers_.at(static_cast<size_t>(layer)).v; }
  // Keys and values of all rows so far, [length, K, d] in `dtype`: views where they are kept so.
  std::pair<at::Tensor, at::Tensor> rows(int64_t layer, at::ScalarType dtype) const;
  // Rows held by a layer (all layers agree between passes).
  int64_t length(int64_t layer = 0) const { return layers_[static_cast<size_t>(layer)].length; }
  // Forgets the rows from `length` on.
  void truncate(int64_t length);
  // That are allocated, scales included.
  int64_t bytes() const;

 private:
  struct Layer {
    KvRows k, v;
    int64_t length = 0;
  };
  KvForm form_;
  std::vector<Layer> layers_;
};

// For passes that nothing continues, over `layers` layers: gives each sequence of the pass an empty cache, which must outlive it, so that keys and
// values are rounded as a cache rounds them. None for `automatic`, which rounds nothing.
std::vector<KvCache> caches_for(Pass& pass, int64_t layers, KvForm form);

}  // namespace statera
