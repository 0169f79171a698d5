// Walks the source's tensors in the order of its files and settles what each becomes.
#include "quant/output_plan.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

// What the model says of an on-disk tensor.
struct Known {
  std::string internal;
  Role role = Role::other;
  int64_t block = -1;
};

std::unordered_map<std::string, Known> known_tensors(const Model& model, const CheckpointSource& source) {
  std::unordered_map<std::string, Known> out;
  for (const auto& [path, site] : model.params.linears)
    out[source.stored_tensor(*site)] = {path + ".weight", site->role, site->block};
  for (const auto& [path, site] : model.params.tensors) out[source.disk_tensor(path)] = {path, site->role, site->block};
  return out;
}

// "model.layers.3" of "model.layers.3.mlp.down_proj.weight" and 3: the path of the block a parameter belongs to.
std::string block_path(const std::string& internal, int64_t block) {
  const std::string number = "." + std::to_string(block) + ".";
  auto at = internal.find(number);
  check(at != internal.npos, "a parameter of a block without the block's index in its path: " + internal);
  return internal.substr(0, at + number.size() - 1);
}

bool is_language(Role role) { return role == Role::attention || role == Role::mlp || role == Role::expert || role == Role::router; }

// The patch embedding is neither block nor projector: it is never quantized.
bool is_vision(const Known& what) { return what.role == Role::projector || (what.role == Role::vision && what.block >= 0); }

// Linear layers that stay floating, as quantization_config names them: by tower where a whole one stays, else by the name in the files
// and, where it differs, the name in memory.
std::vector<std::string> ignore_list(const std::vector<LayerChoice>& layers) {
  std::vector<std::string> out;
  auto add = [&](const std::string& text) {
    if (std::find(out.begin(), out.end(), text) == out.end()) out.push_back(text);
  };
  bool head = false;
  for (const LayerChoice& l : layers) {
    head |= l.site->role == Role::head;
    if (l.quantized) continue;
    if (l.site->role == Role::vision || l.site->role == Role::projector) {
      auto parts = split(l.disk_path, '.');
      const std::string tower = parts.size() > 1 && parts[0] == "model" ? parts[1] : parts[0];
      bool whole = std::none_of(layers.begin(), layers.end(),
                                [&](const LayerChoice& o) { return o.quantized && o.disk_path.find(tower) != std::string::npos; });
      if (whole) {
        add("re:.*" + tower + ".*");
        continue;
      }
    }
    if (!l.site->stored_shape.empty()) continue;  // a convolution is no target
    add(l.disk_path);
    add(l.site->path);
  }
  if (!head) add("lm_head");  // a tied head is a linear layer to other loaders
  return out;
}

// 8-bit activations are multiplied with whole rows of codes.
void check_act(const StoredLinear& l) {
  if (!l.act) return;
  if (l.spec.group != -1)
    throw Error(ErrorKind::usage, "layer " + l.path + ": 8-bit activations take one scale per row of the weights, not groups of " +
                                      std::to_string(l.spec.group));
  if (!l.spec.symmetric) throw Error(ErrorKind::usage, "layer " + l.path + ": 8-bit activations take symmetric weights");
}

class Planner {
 public:
  Planner(const Model& model, const CheckpointSource& source, const PlanOptions& options)
      : source_(source), options_(options), format_(format_named(options.format)), known_(known_tensors(model, source)) {
    choices_ = select_layers(model, source, options.select, options.weights);
    for (LayerChoice& choice : choices_) {
      auto bits = options.bits.find(choice.disk_path);
      if (bits != options.bits.end()) choice.spec.bits = bits->second;
    }
  }

  OutputPlan make() {
    plan_layers();
    const Checkpoint& ckpt = source_.checkpoint();
    int64_t parameters = 0;
    for (const SafetensorsFile& file : ckpt.files()) {
      for (const TensorInfo& info : file.tensors()) {
        place(info);
        parameters += info.elements();
        plan_.source_bytes += info.bytes;
      }
    }
    for (const TensorInfo& info : ckpt.aliases()) {
      place(info);
      parameters += info.elements();
    }
    check(placed_layers_ == plan_.layers.size(), "a quantized layer was not placed");
    plan_.shards = plan_shards(tensors_, options_.max_shard_bytes, torch_metadata(), parameters);
    plan_.result_bytes = plan_.shards.total_bytes;
    finish_units();
    finish_config();
    plan_.choices = std::move(choices_);
    return std::move(plan_);
  }

 private:
  void plan_layers() {
    for (const LayerChoice& choice : choices_) {
      RoleCount& count = plan_.roles[std::string(to_string(choice.site->role))];
      (choice.quantized ? count.quantized_layers : count.kept_layers) += 1;
      const std::string source = source_.stored_tensor(*choice.site);
      const bool shared = source != choice.disk_path + ".weight";  // with other experts
      if (!choice.quantized) {
        if (shared) kept_experts_.emplace(source, &choice);
        continue;
      }
      LayerPlan layer;
      layer.site = choice.site;
      layer.source = source;
      const TensorInfo* info = source_.checkpoint().find(layer.source);
      if (!info) throw Error(ErrorKind::bad_file, source_.checkpoint().place(layer.source) + ": missing");
      if (info->dtype != at::kFloat && info->dtype != at::kBFloat16 && info->dtype != at::kHalf) {
        throw Error(ErrorKind::unsupported, source_.checkpoint().place(layer.source) + ": weights of dtype " +
                                                std::string(info->type->name) + " cannot be quantized (F32, BF16 and F16 can)");
      }
      if (!shared && info->shape != std::vector<int64_t>{choice.site->out, choice.site->in}) {
        throw Error(ErrorKind::bad_file, source_.checkpoint().place(layer.source) + ": shape " + shape_string(info->shape) + ", expected " +
                                             shape_string(std::vector<int64_t>{choice.site->out, choice.site->in}));
      }
      layer.stored = {choice.disk_path, choice.site->out, choice.site->in, choice.spec, options_.act, info->dtype};
      check_act(layer.stored);
      layer.tensors = with_context("layer " + choice.disk_path, [&] { return format_.plan(layer.stored); });
      for (const TensorPlan& t : layer.tensors) plan_.quantized_bytes += t.bytes();
      plan_.weights += choice.site->out * choice.site->in;
      layers_of_[layer.source].push_back(plan_.layers.size());
      plan_.layers.push_back(std::move(layer));
    }
    for (const auto& [tensor, kept] : kept_experts_) {
      if (!layers_of_.count(tensor)) continue;
      throw Error(ErrorKind::unsupported, source_.checkpoint().place(tensor) + ": holds layers to be quantized and " + kept->disk_path + ", which stays floating (" +
                                              kept->reason + "): all of one tensor or none");
    }
  }

  void place(const TensorInfo& info) {
    const Checkpoint& ckpt = source_.checkpoint();
    auto known = known_.find(info.name);
    const Known what = known == known_.end() ? Known{} : known->second;
    if (known == known_.end())
      plan_.unknown.push_back(info.name);
    else
      plan_.internal_of[info.name] = what.internal;
    const std::string role = known == known_.end() ? "unknown" : std::string(to_string(what.role));
    plan_.role_of[info.name] = role;
    RoleCount& count = plan_.roles[role];
    count.source_bytes += info.bytes;
    UnitPlan& unit = unit_of(what);
    unit.source_bytes += info.bytes;
    unit.language |= is_language(what.role);
    unit.vision |= is_vision(what);
    if (auto layers = layers_of_.find(info.name); layers != layers_of_.end()) {
      for (size_t i : layers->second) {
        for (const TensorPlan& t : plan_.layers[i].tensors) {
          check(t.name == info.name || !ckpt.has(t.name), "a quantized layer's tensor is in the source already: " + t.name);
          tensors_.push_back(t);
          count.result_bytes += t.bytes();
        }
        unit.layers.push_back(i);
        ++placed_layers_;
      }
      return;
    }
    if (info.dtype == at::ScalarType::Undefined)
      throw Error(ErrorKind::unsupported, ckpt.place(info.name) + ": dtype " + std::string(info.type->name) + " cannot be copied");
    tensors_.push_back({info.name, info.dtype, info.shape});
    count.result_bytes += info.bytes;
    ++count.kept_tensors;
    unit.kept.push_back(info.name);
  }

  UnitPlan& unit_of(const Known& what) {
    const std::string name = what.block >= 0 ? block_path(what.internal, what.block) : what.role == Role::projector ? "projectors" : "outside blocks";
    UnitPlan& unit = units_[name];
    unit.name = name;
    unit.block = what.block;
    return unit;
  }

  // The tower, then the rest; of each the blocks by index, then what lies outside them.
  void finish_units() {
    for (auto& [name, unit] : units_) plan_.units.push_back(std::move(unit));
    auto place = [](const UnitPlan& u) {
      return std::tuple(!u.vision, u.block < 0, u.block < 0 ? std::string() : u.name.substr(0, u.name.rfind('.')), u.block);
    };
    std::sort(plan_.units.begin(), plan_.units.end(), [&](const UnitPlan& a, const UnitPlan& b) { return place(a) < place(b); });
    size_t layers = 0, kept = 0;
    for (const UnitPlan& u : plan_.units) {
      layers += u.layers.size();
      kept += u.kept.size();
    }
    check(layers == plan_.layers.size() && layers_of_.size() + kept == source_.checkpoint().names().size(),
          "quantized and kept tensors are not all tensors");
  }

  void finish_config() {
    std::vector<StoredLinear> stored;
    for (const LayerPlan& l : plan_.layers) stored.push_back(l.stored);
    plan_.config = source_.checkpoint().config();
    Json config = format_.quantization_config(stored, ignore_list(choices_));
    name_targets(config);
    plan_.config.set("quantization_config", std::move(config));
    if (!plan_.unknown.empty()) {
      plan_.warnings.push_back(std::to_string(plan_.unknown.size()) +
                               " tensors that the model does not know are copied as they are, e.g. " + plan_.unknown.front());
    }
  }

  // Layers that a group of the config targets by name: also by the name in memory where it differs.
  void name_targets(Json& config) const {
    std::map<std::string, std::string> in_memory;
    for (const LayerPlan& l : plan_.layers) {
      if (l.stored.path != l.site->path) in_memory[l.stored.path] = l.site->path;
    }
    Json* groups = config.find("config_groups");
    if (!groups || in_memory.empty()) return;
    for (auto& [name, group] : groups->members()) {
      Json* targets = group.find("targets");
      if (!targets) continue;
      for (const Json& t : Json::Array(targets->as_array("targets"))) {
        auto it = in_memory.find(t.as_string("targets"));
        if (it != in_memory.end()) targets->push(it->second);
      }
    }
  }

  const CheckpointSource& source_;
  const PlanOptions& options_;
  const Format& format_;
  std::unordered_map<std::string, Known> known_;
  std::vector<LayerChoice> choices_;
  std::unordered_map<std::string, std::vector<size_t>> layers_of_;  // on-disk weight -> indices, several for fused experts
  std::map<std::string, const LayerChoice*> kept_experts_;          // on-disk tensor -> one of its layers that stays floating
  std::vector<TensorPlan> tensors_;
  std::map<std::string, UnitPlan> units_;
  size_t placed_layers_ = 0;
  OutputPlan plan_;
};

}  // namespace

OutputPlan plan_output(const Model& model, const CheckpointSource& source, const PlanOptions& options) {
  const Checkpoint& ckpt = source.checkpoint();
  if (const Json* q = ckpt.quantization_config()) {
    throw Error(ErrorKind::unsupported, ckpt.directory() + ": is quantized already (" + q->get_string("quant_method", "unknown method") +
                                            "); start from a floating checkpoint");
  }
  return Planner(model, source, options).make();
}

}  // namespace statera
