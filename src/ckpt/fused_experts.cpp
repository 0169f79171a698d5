// Names first, then shapes: the tensor's own, and where that fits both layouts its sibling's.
#include "ckpt/fused_experts.h"

#include <charconv>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

struct Name {
  std::string experts;  // "model.layers.0.mlp.experts"
  int64_t expert = 0;
  std::string_view layer;
  std::string tensor() const { return experts + (layer == "down_proj" ? ".down_proj" : ".gate_up_proj"); }
};

std::optional<Name> parse(std::string_view path) {
  static constexpr std::string_view kExperts = ".experts.";
  const size_t at = path.rfind(kExperts), dot = path.rfind('.');
  if (at == path.npos || dot < at + kExperts.size()) return std::nullopt;
  const std::string_view number = path.substr(at + kExperts.size(), dot - at - kExperts.size());
  Name name{std::string(path.substr(0, at + kExperts.size() - 1)), 0, path.substr(dot + 1)};
  const auto [end, fault] = std::from_chars(number.data(), number.data() + number.size(), name.expert);
  if (number.empty() || fault != std::errc() || end != number.data() + number.size() || name.expert < 0) return std::nullopt;
  if (name.layer != "gate_proj" && name.layer != "up_proj" && name.layer != "down_proj") return std::nullopt;
  return name;
}

// Output-major [E, out, in], input-major [E, in, out], or both.
struct Fit {
  bool outputs = false, inputs = false;
};
Fit fit(const TensorInfo& info, int64_t out, int64_t in) {
  const auto& s = info.shape;
  if (s.size() != 3) return {};
  return {s[1] == out && s[2] == in, s[1] == in && s[2] == out};
}

}  // namespace

bool has_fused_expert(const Checkpoint& checkpoint, std::string_view disk_path) {
  const auto name = parse(disk_path);
  return name && checkpoint.has(name->tensor());
}

std::optional<FusedExpert> find_fused_expert(const Checkpoint& checkpoint, std::string_view disk_path, int64_t out, int64_t in) {
  const auto name = parse(disk_path);
  if (!name || checkpoint.has(std::string(disk_path) + ".weight")) return std::nullopt;
  const TensorInfo* info = checkpoint.find(name->tensor());
  if (!info) return std::nullopt;
  const bool down = name->layer == "down_proj";
  FusedExpert layer{name->tensor(), name->expert, name->layer == "up_proj" ? out : 0, out, in, false, ""};
  const int64_t rows = down ? out : 2 * out;  // of the whole matrix
  const Fit own = fit(*info, rows, in);
  if (info->dtype != at::kFloat && info->dtype != at::kBFloat16 && info->dtype != at::kHalf) {
    layer.problem = std::string("dtype ") + info->type->name + ", expected F32, BF16 or F16";
  } else if ((!own.outputs && !own.inputs) || name->expert >= info->shape[0]) {
    layer.problem = "shape " + shape_string(info->shape) + ", expected [E, " + std::to_string(rows) + ", " + std::to_string(in) + "] or [E, " +
                    std::to_string(in) + ", " + std::to_string(rows) + "] with E above " + std::to_string(name->expert);
  } else if (own.outputs != own.inputs) {
    layer.input_major = own.inputs;
  } else {
    // A square says nothing; its sibling, of other sizes, does.
    const TensorInfo* sibling = checkpoint.find(name->experts + (down ? ".gate_up_proj" : ".down_proj"));
    const Fit other = !sibling ? Fit{} : down ? fit(*sibling, 2 * in, out) : fit(*sibling, in, out);
    layer.input_major = other.inputs;
    if (other.outputs == other.inputs) layer.problem = "shape " + shape_string(info->shape) + " does not say whether rows are inputs or outputs";
  }
  return layer;
}

at::Tensor fused_expert_weight(const Checkpoint& checkpoint, const FusedExpert& layer) {
  if (!layer.problem.empty()) throw Error(ErrorKind::bad_file, checkpoint.place(layer.tensor) + ": " + layer.problem);
  const at::Tensor expert = checkpoint.tensor(layer.tensor).select(0, layer.expert);
  return (layer.input_major ? expert.t() : expert).slice(0, layer.begin, layer.begin + layer.out);
}

void release_fused_expert(const Checkpoint& checkpoint, const FusedExpert& layer) {
  const TensorInfo& info = *checkpoint.find(layer.tensor);
  const uint64_t bytes = info.bytes / static_cast<uint64_t>(info.shape.at(0));
  checkpoint.file_of(layer.tensor).mapping().release(info.offset + static_cast<uint64_t>(layer.expert) * bytes, bytes);
}

}  // namespace statera
