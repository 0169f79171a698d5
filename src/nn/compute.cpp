// See compute.h.
#include "nn/compute.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "nn/attend.h"
#include "nn/attend_kernel.h"

namespace statera {

Compute parse_compute(std::string_view name) {
  if (name == "auto") return Compute::automatic;
  if (name == "exact") return Compute::exact;
  if (name == "int8") return Compute::int8;
  throw Error(ErrorKind::usage, "unknown compute \"" + std::string(name) + "\" (auto, exact or int8)");
}

void set_compute(Params& params, Compute compute) {
  if (compute == Compute::exact) return;
  bool any = false;
  for (auto& [path, site] : params.linears) {
    if (!site->weight || site->role == Role::router || !is_packed(*site->weight)) continue;
    any = true;
    if (site->act) continue;
    site->act = integer_activations(*site->weight);
    if (!site->act && compute == Compute::int8) {
      throw Error(ErrorKind::unsupported, path + ": groups that are no multiple of 32 cannot be computed in integers (--compute exact or auto)");
    }
  }
  if (!any && compute == Compute::int8) {
    throw Error(ErrorKind::unsupported, "no layer has low-bit weights, so --compute int8 has nothing to compute in integers");
  }
}

Compute parse_vision_attention(std::string_view name) {
  if (name == "auto" || name == "exact" || name == "int8") return parse_compute(name);
  throw Error(ErrorKind::usage, "unknown vision attention \"" + std::string(name) + "\" (auto, exact or int8)");
}

void set_vision_attention(Params& params, Compute compute, at::ScalarType activations) {
  if (compute == Compute::exact) return;
  if (compute == Compute::automatic) {
    const bool integers = std::any_of(params.linears.begin(), params.linears.end(), [](const auto& entry) {
      const LinearSite& site = *entry.second;
      return site.role == Role::vision && site.act && site.act->bits == 8;
    });
    if (!integers || activations != at::kFloat || !picture_attention_pays()) return;
  }
  if (compute == Compute::int8 && params.picture_attentions.empty())
    throw Error(ErrorKind::unsupported, "no vision tower, so --vision-attention int8 has nothing to compute in integers");
  if (activations != at::kFloat) throw Error(ErrorKind::unsupported, "--vision-attention int8 needs --dtype fp32");
  for (const auto& site : params.picture_attentions) site->in_integers = true;
}

}  // namespace statera
