// compute: whether low-bit weights meet activations as they are, or rounded to 8 bits so that the products run in integers. A choice of
// whoever loads a model: it sets the input quantizers of layers that the checkpoint says nothing about.
#pragma once

#include <c10/core/ScalarType.h>

#include <string_view>

#include "nn/site.h"

namespace statera {

// automatic: int8 for every packed layer that can; int8: the same, and an error where one cannot.
enum class Compute { automatic, exact, int8 };
// "auto", "exact", "int8"; Error(usage) otherwise.
Compute parse_compute(std::string_view name);
// Activation quantizers of the checkpoint stay, whatever is chosen; routers stay exact, since a token's choice of experts is no matter of
// degree. With int8 Error(unsupported) when no layer is packed, or one has groups that cannot run in integers.
void set_compute(Params& params, Compute compute);
// The same words for attention among patches of a picture; Error(usage) otherwise.
Compute parse_vision_attention(std::string_view name);
// int8: both products of a vision tower's attention in integers; automatic: where layers of the tower compute in integers, too, and the machine
// is faster at it. Error(unsupported) for int8 where there is no such attention, or activations are not fp32.
void set_vision_attention(Params& params, Compute compute, at::ScalarType activations);

}  // namespace statera
