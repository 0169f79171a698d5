// describe: what the operators of a forward pass do at least, for the spans around them (base/profile.h). Counted from shapes alone: what a
// kernel computes besides (masked products, conversions) is not counted. Called only while a profile is recorded.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

#include "base/profile.h"
#include "nn/attend.h"
#include "nn/linear.h"
#include "nn/pass.h"
#include "nn/site.h"

namespace statera {

// Rows [K] of elements of so many bytes through a linear layer: 2 T N K; x, y and the weight as it is held. Named by its path.
profile::Description describe_linear(const LinearSite& site, int64_t rows, int64_t element_size);
profile::Description describe_linear(const LinearSite& site, const at::Tensor& x);  // [..., K]
// Several that read the same x in one run. Named by their paths: "layers.0.self_attn.q_proj+k_proj+v_proj".
profile::Description describe_together(std::initializer_list<const Linear*> layers, const at::Tensor& x);
// Attention of every sequence in `bounds`, over its cached keys too: 2 (d + dv) for each query head and key it may see; q, k, v and the
// output once, cached keys and values included.
profile::Description describe_attention(const at::Tensor& q_TNd, const at::Tensor& k_TKd, const at::Tensor& v_TKd, const AttendSite& site,
                                        const SequenceBounds& bounds, const Pass& pass, bool cached);
// An operator that reads x and writes as much: bytes only.
profile::Description describe_elementwise(const at::Tensor& x);

// Keys that queries standing at the end of `keys` positions see, added up.
int64_t visible_keys(int64_t queries, int64_t keys, bool causal, int64_t window);

}  // namespace statera
