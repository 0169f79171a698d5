// Any bytes as a shard index and as a quantization_config: an Error or a value that can be used.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "ckpt/checkpoint.h"
#include "ckpt/ct_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace statera;
  Json json;
  try {
    json = Json::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const Error&) {
    return 0;
  }
  try {
    for (const auto& [tensor, file] : parse_shard_index(json, "fuzz")) {
      if (file.empty() || file.front() == '/' || file.starts_with("../")) std::abort();
    }
  } catch (const Error&) {
  }
  try {
    const CtConfig config = parse_ct_config(json);
    for (const char* name : {"lm_head", "model.layers.0.self_attn.q_proj", "model.visual.blocks.11.attn.qkv"}) {
      const CtScheme* s = config.scheme_of(name);
      if (s && s->unsupported.empty() && (s->spec.bits < 2 || s->spec.bits > 8 || s->spec.groups(64) < 1)) std::abort();
    }
  } catch (const Error&) {
  }
  return 0;
}
