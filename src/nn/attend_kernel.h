// Attention through kernels/attn: fp32 heads without a graph. Not an entry point for models: attend (attend.h) decides.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/attend.h"

namespace statera {

// Whether the kernels take these: fp32, no graph, heads contiguous and no wider than the kernels' buffers.
bool attends_in_kernels(const at::Tensor& q_TNd, const at::Tensor& k_TKd, const at::Tensor& v_TKd);
// Whether this machine is faster at attention in integers (AttendSite::in_integers).
bool picture_attention_pays();
// q, k and v as attend gets them, rotated; caches one per sequence, or none. [T, N*dv]
at::Tensor attend_in_kernels(const at::Tensor& q_TNd, const at::Tensor& k_TKd, const at::Tensor& v_TKd, const AttendSite& site, double scale,
                             const SequenceBounds& bounds, const std::vector<KvCache*>& caches);

}  // namespace statera
