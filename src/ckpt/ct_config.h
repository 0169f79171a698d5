// The quantization_config of compressed-tensors: reading what other writers wrote into schemes that can be computed with, and writing
// ours. Looks at no tensor (formats/compressed_tensors.cpp).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "ckpt/format.h"
#include "ckpt/packing.h"
#include "nn/qtensor.h"
#include "nn/weight.h"

namespace statera {

struct CtScheme {
  std::vector<std::string> targets;  // module names, "re:" patterns, class names
  std::string format;                // "pack-quantized", "int-quantized", ... : the group's, else the global one
  QSpec spec;
  std::optional<ActQuant> act;       // of static ones the kind only
  std::string unsupported;  // why layers of this scheme cannot be read; empty: they can
};

struct CtConfig {
  std::vector<CtScheme> schemes;     // in order of the file
  Packing packing = Packing::dense;  // by the version that wrote it
  // The scheme of a linear layer: exact names before patterns before class names; nullptr when none targets it.
  const CtScheme* scheme_of(const std::string& module) const;
};

// Error(bad_file) for what is malformed, Error(unsupported) for what concerns every layer (rotations applied at run time).
CtConfig parse_ct_config(const Json& quantization_config);

// The quantization_config of these layers; the largest set of equal layers is targeted as class "Linear", the others by name.
Json make_ct_config(const std::vector<StoredLinear>& linears, const std::vector<std::string>& ignore);

// Whether a layer is stored as plain int8 codes (int-quantized) or packed (pack-quantized).
bool stored_as_int8(const StoredLinear& linear);

}  // namespace statera
