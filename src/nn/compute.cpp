// See compute.h.
#include "nn/compute.h"

#include <string>

#include "base/error.h"

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

}  // namespace statera
