// attend: the only attention. RoPE'd q and k, the cache, masks by sequence and position. Grouped heads: key head j serves
// query heads j*(N/K) .. (j+1)*(N/K)-1.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/pass.h"

namespace statera {

struct AttendSite {
  int64_t layer = 0;              // index in the KvCache
  bool causal = true;
  int64_t window = 0;             // > 0: key j is visible to query i iff i - window < j <= i
  double scale = 0;               // 0: d^-1/2
  at::Tensor qk_rotation;         // [d, d] orthogonal, applied to q and k after RoPE; undefined: none
  bool in_integers = false;       // not causal, no cache: both products of codes of 8 bits (kernels/attn/attn.h)
};

// q [T, N, d], k and v [T, K, d], rows grouped by pass.bounds (or `bounds` when given: vision windows). Returns [T, N*d] in q's dtype.
at::Tensor attend(const at::Tensor& q_TNd, const at::Tensor& k_TKd, const at::Tensor& v_TKd, const AttendSite& site, const Pass& pass,
                  const SequenceBounds* bounds = nullptr);

}  // namespace statera
