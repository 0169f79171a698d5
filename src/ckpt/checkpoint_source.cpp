// Names between models and files, and what a checkpoint lacks.
#include "ckpt/checkpoint_source.h"

#include <algorithm>
#include <map>
#include <unordered_set>

#include "base/error.h"
#include "base/strings.h"
#include "ckpt/fused_experts.h"

namespace statera {
namespace {

// Notes every parameter a model asks for and reads none.
class Recorder : public WeightSource {
 public:
  explicit Recorder(const std::function<bool(const std::string&)>& has) : has_(has) {}
  bool has(const std::string& name) const override { return has_(name); }
  at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape) override {
    seen.push_back({name, shape, false});
    return {};
  }
  Weight linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>&) override {
    seen.push_back({path + ".weight", {out, in}, true});
    return nullptr;
  }
  std::vector<Expected> seen;

 private:
  const std::function<bool(const std::string&)>& has_;
};

// transformers 5.10 to 5.22 saved some models with this prefix doubled.
constexpr const char* kText = "model.language_model.";
constexpr const char* kDoubledText = "model.language_model.model.";

std::vector<Layout> candidates(const ModelType& type) {
  std::vector<Layout> out(type.layouts.begin(), type.layouts.end());
  out.emplace_back();
  std::vector<Layout> doubled;
  for (Layout layout : out) {
    bool changed = false;
    for (auto& [internal, disk] : layout) {
      if (disk != kText) continue;
      disk = kDoubledText;
      changed = true;
    }
    if (layout.empty()) {
      layout = {{kText, kDoubledText}};
      changed = true;
    }
    if (changed) doubled.push_back(std::move(layout));
  }
  out.insert(out.end(), doubled.begin(), doubled.end());
  return out;
}

std::string without_suffix(const std::string& name, std::string_view suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

// A parameter stands in the files as itself, in a quantized form or with those of other experts.
bool present(const Checkpoint& checkpoint, const std::string& disk) {
  return checkpoint.has(disk) || (disk.ends_with(".weight") && (checkpoint.has(disk + "_packed") || has_fused_expert(checkpoint, without_suffix(disk, ".weight"))));
}

// Tensors that carry no parameter: tables that are computed, heads that are tied, blocks that only train.
bool ignorable(const std::string& name, bool tied) {
  static const char* const suffixes[] = {"rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", ".position_ids", ".masked_bias",
                                         ".attn.bias",          ".num_batches_tracked"};
  for (const char* s : suffixes) {
    if (name.ends_with(s)) return true;
  }
  return name.starts_with("mtp.") || (tied && name.ends_with("lm_head.weight"));
}

bool is_tied(const Json& config) {
  const Json* text = config.get("text_config");
  return config.get_bool("tie_word_embeddings", false) || (text && text->get_bool("tie_word_embeddings", false));
}

std::vector<std::string> unused(const Checkpoint& checkpoint, const std::unordered_set<std::string>* wanted) {
  std::vector<std::string> out;
  const bool tied = is_tied(checkpoint.config());
  for (const std::string& name : checkpoint.names()) {
    const bool used = wanted ? wanted->contains(name) : checkpoint.used(name);
    if (!used && !ignorable(name, tied)) out.push_back(name);
  }
  return out;
}

void check_floating(const Checkpoint& checkpoint, const std::string& disk) {
  const TensorInfo* info = checkpoint.find(disk);
  if (!info) return;
  if (info->dtype != at::kFloat && info->dtype != at::kBFloat16 && info->dtype != at::kHalf) {
    throw Error(ErrorKind::unsupported, checkpoint.place(disk) + ": dtype " + info->type->name + ", expected F32, BF16 or F16");
  }
}

}  // namespace

std::string map_name(const Layout& layout, std::string_view internal) {
  const std::pair<std::string, std::string>* best = nullptr;
  for (const auto& entry : layout) {
    if (internal.starts_with(entry.first) && (!best || entry.first.size() > best->first.size())) best = &entry;
  }
  if (!best) return std::string(internal);
  return best->second + std::string(internal.substr(best->first.size()));
}

std::vector<Expected> expected_parameters(const ModelType& type, const Json& config, const std::function<bool(const std::string&)>& has) {
  Recorder recorder(has);
  type.make(config, recorder);
  return std::move(recorder.seen);
}

Layout choose_layout(const Checkpoint& checkpoint, const ModelType& type) {
  const auto expected = expected_parameters(type, checkpoint.config(), [](const std::string&) { return true; });
  Layout best;
  size_t best_found = 0;
  for (const Layout& layout : candidates(type)) {
    size_t found = 0;
    for (const Expected& e : expected) found += present(checkpoint, map_name(layout, e.name));
    if (found > best_found) {
      best = layout;
      best_found = found;
    }
  }
  return best;
}

CheckpointSource::CheckpointSource(Checkpoint checkpoint, const ModelType& type) : checkpoint_(std::move(checkpoint)), type_(type) {
  const std::string where = checkpoint_.directory() + "/config.json";
  layout_ = with_context(where, [&] { return choose_layout(checkpoint_, type); });
  if (const Json* q = checkpoint_.quantization_config()) format_ = &format_of(*q, where);
}

bool CheckpointSource::has(const std::string& name) const { return present(checkpoint_, disk_tensor(name)); }

std::string CheckpointSource::disk_name(const std::string& path) const {
  std::string name = map_name(layout_, path + ".");
  if (name.ends_with('.')) name.pop_back();
  return name;
}

at::Tensor CheckpointSource::tensor(const std::string& name, const std::vector<int64_t>& shape) {
  const std::string disk = disk_tensor(name);
  check_floating(checkpoint_, disk);
  return checkpoint_.tensor(disk, shape);
}

Weight CheckpointSource::linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) {
  const std::string disk = disk_name(path);
  if (format_) {
    if (Weight w = format_->read(checkpoint_, *checkpoint_.quantization_config(), disk, out, in, act)) return w;
  }
  const std::string name = disk + ".weight";
  if (!format_ && !checkpoint_.has(name) && checkpoint_.has(name + "_packed")) {
    throw Error(ErrorKind::bad_file, checkpoint_.place(name + "_packed") + ": packed weights, but config.json has no quantization_config");
  }
  if (const auto expert = find_fused_expert(checkpoint_, disk, out, in)) return make_dense(fused_expert_weight(checkpoint_, *expert));
  check_floating(checkpoint_, name);
  return make_dense(checkpoint_.tensor(name, {out, in}));
}

std::string CheckpointSource::stored_tensor(const LinearSite& site) const {
  const std::string disk = disk_name(site.path);
  const auto expert = find_fused_expert(checkpoint_, disk, site.out, site.in);
  return expert ? expert->tensor : disk + ".weight";
}

at::Tensor CheckpointSource::stored_weight(const LinearSite& site) const {
  const std::string disk = disk_name(site.path);
  if (const auto expert = find_fused_expert(checkpoint_, disk, site.out, site.in)) return fused_expert_weight(checkpoint_, *expert);
  return checkpoint_.tensor(disk + ".weight", {site.out, site.in});
}

void CheckpointSource::release(const LinearSite& site) const {
  const std::string disk = disk_name(site.path);
  if (const auto expert = find_fused_expert(checkpoint_, disk, site.out, site.in)) return release_fused_expert(checkpoint_, *expert);
  checkpoint_.release(disk + ".weight");
}

std::vector<std::string> CheckpointSource::unexpected() const { return unused(checkpoint_, nullptr); }

CheckpointProblems find_problems(const Checkpoint& checkpoint, const ModelType& type) {
  CheckpointSource source(checkpoint, type);
  const Json* config = checkpoint.quantization_config();
  CheckpointProblems out;
  std::unordered_set<std::string> wanted;
  std::map<std::string, int64_t> fused;  // tensors of experts -> how many the model has
  for (const Expected& e : expected_parameters(type, checkpoint.config(), [&](const std::string& name) { return source.has(name); })) {
    const std::string disk = e.linear ? source.disk_name(without_suffix(e.name, ".weight")) + ".weight" : source.disk_tensor(e.name);
    wanted.insert(disk);
    if (e.linear && source.format()) {
      const std::string module = without_suffix(disk, ".weight");
      for (const char* suffix : {"weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"}) {
        wanted.insert(module + "." + suffix);
      }
      try {
        if (source.format()->describe(checkpoint, *config, module, e.shape[0], e.shape[1])) continue;
      } catch (const Error& error) {
        out.misshapen.push_back(error.message());
        continue;
      }
    }
    if (const auto expert = e.linear ? find_fused_expert(checkpoint, without_suffix(disk, ".weight"), e.shape[0], e.shape[1]) : std::nullopt) {
      wanted.insert(expert->tensor);
      const bool first = fused.find(expert->tensor) == fused.end();
      fused[expert->tensor] = expert->expert + 1;
      if (first && !expert->problem.empty()) out.misshapen.push_back(expert->tensor + ": " + expert->problem);
      continue;
    }
    const TensorInfo* info = checkpoint.find(disk);
    if (!info) {
      out.missing.push_back(disk);
    } else if (info->shape != e.shape) {
      out.misshapen.push_back(disk + ": shape " + shape_string(info->shape) + ", expected " + shape_string(e.shape));
    }
  }
  for (const auto& [name, experts] : fused) {
    const auto& shape = checkpoint.find(name)->shape;
    if (!shape.empty() && shape[0] > experts) out.misshapen.push_back(name + ": shape " + shape_string(shape) + " for " + std::to_string(experts) + " experts");
  }
  out.unexpected = unused(checkpoint, &wanted);
  return out;
}

}  // namespace statera
