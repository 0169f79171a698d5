// See loaded.h.
#include "api/loaded.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/strings.h"
#include "ckpt/own_head.h"
#include "kernels/cpu.h"
#include "nn/compute.h"

namespace statera {

at::ScalarType parse_dtype(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  if (name == "fp32" || name == "f32" || name == "float32" || name == "float") return at::kFloat;
  if (name == "bf16" || name == "bfloat16") return at::kBFloat16;
  if (name == "fp16" || name == "f16" || name == "float16" || name == "half") return at::kHalf;
  throw Error(ErrorKind::usage, "unknown dtype \"" + std::string(name) + "\" (fp32, bf16 or fp16)");
}

std::optional<at::ScalarType> stated_dtype(const Json& config) {
  const Json* text = config.get("text_config");
  for (const Json* part : {&config, text}) {
    if (!part) continue;
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (const Json* v = part->get(key)) return with_context(key, [&] { return parse_dtype(v->as_string()); });
    }
  }
  return std::nullopt;
}

at::ScalarType stored_dtype(const Checkpoint& checkpoint) {
  const auto stated = with_context(checkpoint.directory() + "/config.json", [&] { return stated_dtype(checkpoint.config()); });
  if (stated) return *stated;
  // No word in the config: the type of most of the weights.
  std::map<at::ScalarType, uint64_t> bytes;
  for (const std::string& name : checkpoint.names()) {
    const TensorInfo* info = checkpoint.find(name);
    bytes[info->dtype] += info->bytes;
  }
  const at::ScalarType half = bytes[at::kBFloat16] >= bytes[at::kHalf] ? at::kBFloat16 : at::kHalf;
  return bytes[half] >= bytes[at::kFloat] && bytes[half] > 0 ? half : at::kFloat;
}

void prepare_inference() {
  try {
    kernels::active_isa();  // a wrong STATERA_ISA is said here, not inside a kernel
  } catch (const std::runtime_error& e) {
    throw Error(ErrorKind::usage, e.what());
  }
  at::set_num_threads(1);  // our own pool runs the heavy work; a second set of spinning workers would compete with it
}

Loaded open_model(const std::string& directory, const LoadOptions& options, const ThroughSource& through) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  Loaded out;
  out.checkpoint = Checkpoint::open(directory);
  const auto mapped = Clock::now();
  const std::string config = out.checkpoint.directory() + "/config.json";
  const ModelType& type = with_context(config, [&]() -> const ModelType& { return model_type(out.checkpoint.config()); });
  if (options.own_head) out.checkpoint = with_own_head(out.checkpoint, type);
  const at::ScalarType dtype = parse_dtype(options.dtype);
  const Compute compute = parse_compute(options.compute), vision_attention = parse_vision_attention(options.vision_attention);
  prepare_inference();
  CheckpointSource source(out.checkpoint, type);
  const std::unique_ptr<WeightSource> around = through ? through(source, type, out.checkpoint.config()) : nullptr;
  out.model = type.make(out.checkpoint.config(), around ? *around : source);
  out.model->dtype = dtype;
  with_context(out.checkpoint.directory(), [&] { 
    set_compute(out.model->params, compute);
    set_vision_attention(out.model->params, vision_attention, dtype);
  });
  out.mapped_seconds = std::chrono::duration<double>(mapped - start).count();
  out.made_seconds = std::chrono::duration<double>(Clock::now() - mapped).count();
  auto unexpected = source.unexpected();
  if (!unexpected.empty()) {
    const size_t count = unexpected.size();
    unexpected.resize(std::min<size_t>(count, 3));
    log_warn(out.checkpoint.directory() + ": " + std::to_string(count) + " tensors are not used: " + join(unexpected, ", ") +
             (count > 3 ? ", ..." : ""));
  }
  return out;
}

}  // namespace statera
